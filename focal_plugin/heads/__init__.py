"""mmdet's dense heads without the copies of their logits; importing this package registers them."""

from mmdet.models.dense_heads import ATSSHead, CondInstBboxHead, FCOSHead, GFLHead, RetinaHead, VFNetHead
from mmdet.registry import MODELS

from focal_plugin.heads.zero_copy import ZeroCopyMixin

__all__ = [
    'FusedATSSHead',
    'FusedCondInstBboxHead',
    'FusedFCOSHead',
    'FusedGFLHead',
    'FusedRetinaHead',
    'FusedVFNetHead',
]


@MODELS.register_module()
class FusedRetinaHead(ZeroCopyMixin, RetinaHead):
    """RetinaHead (arXiv 1708.02002) that hands its class logits over without copying them."""

    class_convolution = 'retina_cls'


@MODELS.register_module()
class FusedATSSHead(ZeroCopyMixin, ATSSHead):
    """ATSSHead (arXiv 1912.02424) that hands its class logits over without copying them."""

    class_convolution = 'atss_cls'


@MODELS.register_module()
class FusedFCOSHead(ZeroCopyMixin, FCOSHead):
    """FCOSHead (arXiv 1904.01355) that hands its class logits over without copying or joining them."""

    class_convolution = 'conv_cls'


@MODELS.register_module()
class FusedCondInstBboxHead(ZeroCopyMixin, CondInstBboxHead):
    """CondInstBboxHead (arXiv 2003.05664) that hands its class logits over without copying or joining them.

    The scores that a limit of masks goes by are found from the positives' logits alone.
    """

    class_convolution = 'conv_cls'


@MODELS.register_module()
class FusedGFLHead(ZeroCopyMixin, GFLHead):
    """GFLHead (arXiv 2006.04388) that hands its class logits over without copying them.

    The weights of its box losses, the greatest probability of each positive, are found from the positives' logits alone.
    """

    class_convolution = 'gfl_cls'


@MODELS.register_module()
class FusedVFNetHead(ZeroCopyMixin, VFNetHead):
    """VFNetHead (arXiv 2008.13367) that hands its class logits over without copying or joining them.

    A loss that takes (labels, scores), as FusedVarifocalLoss does, gets its targets so. For any other the dense targets are
    made as in VFNetHead, as large as the logits.
    """

    class_convolution = 'vfnet_cls'
