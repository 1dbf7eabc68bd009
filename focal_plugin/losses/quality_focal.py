"""Quality focal loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.quality import FusedQualityLoss
from focal_plugin.math import quality_focal


@MODELS.register_module()
class FusedQualityFocalLoss(FusedQualityLoss):
    """mmdet's QualityFocalLoss as one fused kernel, for (labels, scores) and dense targets."""

    spec = quality_focal.SPEC
    replaces = 'QualityFocalLoss'
