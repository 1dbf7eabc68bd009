"""Sigmoid focal loss as an MMEngine component."""

from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import focal


@MODELS.register_module()
class FusedFocalLoss(FusedLoss, FocalLoss):
    """mmdet's FocalLoss as one fused kernel."""

    spec = focal.SPEC
    replaces = 'FocalLoss'
