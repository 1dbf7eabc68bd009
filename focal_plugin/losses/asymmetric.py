"""Asymmetric loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import asymmetric


@MODELS.register_module()
class FusedAsymmetricLoss(FusedLoss):
    """Focal loss that treats positives and negatives differently and drops easy negatives."""

    spec = asymmetric.SPEC
