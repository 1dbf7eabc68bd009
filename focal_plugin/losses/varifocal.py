"""Varifocal loss as an MMEngine component."""

from mmdet.models.losses import QualityFocalLoss, VarifocalLoss
from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import varifocal


@MODELS.register_module()
class FusedVarifocalLoss(FusedLoss, VarifocalLoss, QualityFocalLoss):
    """mmdet's VarifocalLoss as one fused kernel, for dense targets and, a subclass of QualityFocalLoss, so that the
    heads of DETR and DINO hand it (labels, IoU).
    """

    spec = varifocal.SPEC
    replaces = 'VarifocalLoss'
