"""Focal loss* as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import focal_star


@MODELS.register_module()
class FusedFocalStarLoss(FusedLoss):
    """The second focal loss of the paper: a steeper, shifted logistic loss."""

    spec = focal_star.SPEC
