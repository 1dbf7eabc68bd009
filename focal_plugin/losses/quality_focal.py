"""Quality focal loss as an MMEngine component."""

from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import quality_focal


@MODELS.register_module()
class FusedQualityFocalLoss(FusedLoss, QualityFocalLoss):
    """mmdet's QualityFocalLoss as one fused kernel, for (labels, scores) and dense targets."""

    spec = quality_focal.SPEC
    replaces = 'QualityFocalLoss'
