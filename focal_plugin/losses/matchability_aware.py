"""Matchability-aware loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.quality import FusedQualityLoss
from focal_plugin.math import matchability_aware


@MODELS.register_module()
class FusedMatchabilityAwareLoss(FusedQualityLoss):
    """DEIM's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU)."""

    spec = matchability_aware.SPEC
