"""Position-supervised loss as an MMEngine component."""

from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import position_supervised


@MODELS.register_module()
class FusedPositionSupervisedLoss(FusedLoss, QualityFocalLoss):
    """Stable-DINO's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU)."""

    spec = position_supervised.SPEC
