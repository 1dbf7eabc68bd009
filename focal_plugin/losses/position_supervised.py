"""Position-supervised loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.quality import FusedQualityLoss
from focal_plugin.math import position_supervised


@MODELS.register_module()
class FusedPositionSupervisedLoss(FusedQualityLoss):
    """Stable-DINO's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU)."""

    spec = position_supervised.SPEC
