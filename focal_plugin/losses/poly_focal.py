"""Poly focal loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import poly_focal


@MODELS.register_module()
class FusedPolyFocalLoss(FusedLoss):
    """Focal loss with one more term of its polynomial expansion."""

    spec = poly_focal.SPEC
