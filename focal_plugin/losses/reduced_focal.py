"""Reduced focal loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import reduced_focal


@MODELS.register_module()
class FusedReducedFocalLoss(FusedLoss):
    """Cross-entropy for hard examples, focal loss for easy ones."""

    spec = reduced_focal.SPEC
