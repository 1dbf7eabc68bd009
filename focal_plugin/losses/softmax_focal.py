"""Softmax focal loss as an MMEngine component."""

from mmdet.registry import MODELS

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import softmax_focal


@MODELS.register_module()
class FusedSoftmaxFocalLoss(FusedLoss):
    """Focal loss over a softmax, for heads with a background channel: Faster R-CNN's box head, RetinaNet with a softmax."""

    spec = softmax_focal.SPEC
    use_sigmoid = False
