"""IoU-aware BCE loss as an MMEngine component."""

from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import iou_aware_bce


@MODELS.register_module()
class FusedIoUAwareBCELoss(FusedLoss, QualityFocalLoss):
    """Align-DETR's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU)."""

    spec = iou_aware_bce.SPEC
