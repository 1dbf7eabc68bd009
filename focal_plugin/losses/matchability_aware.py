"""Matchability-aware loss as an MMEngine component."""

from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import matchability_aware


@MODELS.register_module()
class FusedMatchabilityAwareLoss(FusedLoss, QualityFocalLoss):
    """DEIM's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU)."""

    spec = matchability_aware.SPEC
