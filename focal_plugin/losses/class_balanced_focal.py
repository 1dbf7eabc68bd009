"""Class-balanced focal loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import class_balanced_focal


@MODELS.register_module()
class FusedClassBalancedFocalLoss(FusedLoss):
    """Focal loss with rows weighted by how rare their class is in the training set."""

    spec = class_balanced_focal.SPEC
