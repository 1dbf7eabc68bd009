"""IoU-aware BCE loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.quality import FusedQualityLoss
from focal_plugin.math import iou_aware_bce


@MODELS.register_module()
class FusedIoUAwareBCELoss(FusedQualityLoss):
    """Align-DETR's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU)."""

    spec = iou_aware_bce.SPEC
