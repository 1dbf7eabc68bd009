"""mmdet's dense heads without the copies of their logits; importing this package registers them."""

from mmdet.models.dense_heads import (
    ATSSHead,
    CondInstBboxHead,
    DDODHead,
    FCOSHead,
    GFLHead,
    RetinaHead,
    RTMDetHead,
    RTMDetInsHead,
    RTMDetInsSepBNHead,
    RTMDetSepBNHead,
    TOODHead,
    VFNetHead,
)
from mmdet.registry import MODELS

from focal_plugin.heads.zero_copy import ZeroCopyMixin

__all__ = [
    'FusedATSSHead',
    'FusedCondInstBboxHead',
    'FusedDDODHead',
    'FusedFCOSHead',
    'FusedGFLHead',
    'FusedRTMDetHead',
    'FusedRTMDetInsHead',
    'FusedRTMDetInsSepBNHead',
    'FusedRTMDetSepBNHead',
    'FusedRetinaHead',
    'FusedTOODHead',
    'FusedVFNetHead',
]

_DIVIDED = 'it divides the loss of each level by what its assigner finds for all'


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

    def get_positive_infos(self) -> list:
        """The stock head's, once for each loss: what it has kept for them is let go, not held until the next loss."""
        infos = super().get_positive_infos()
        self._raw_positive_infos.clear()
        return infos


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


@MODELS.register_module()
class FusedRTMDetHead(ZeroCopyMixin, RTMDetHead):
    """RTMDetHead (arXiv 2212.07784) that hands its class logits over without copying or joining them.

    Its label assigner copies the logits of the points that lie in objects, and no others.
    """

    not_cut = _DIVIDED


@MODELS.register_module()
class FusedRTMDetSepBNHead(ZeroCopyMixin, RTMDetSepBNHead):
    """RTMDetSepBNHead (arXiv 2212.07784), the head of RTMDet's configs, that copies no class logits, as FusedRTMDetHead."""

    not_cut = _DIVIDED


@MODELS.register_module()
class FusedRTMDetInsHead(ZeroCopyMixin, RTMDetInsHead):
    """RTMDetInsHead (arXiv 2212.07784), which learns masks, and copies no class logits, as FusedRTMDetHead."""

    not_cut = _DIVIDED


@MODELS.register_module()
class FusedRTMDetInsSepBNHead(ZeroCopyMixin, RTMDetInsSepBNHead):
    """RTMDetInsSepBNHead (arXiv 2212.07784), the head of RTMDet-Ins's configs, that copies no class logits."""

    not_cut = _DIVIDED


@MODELS.register_module()
class FusedTOODHead(ZeroCopyMixin, TOODHead):
    """TOODHead (arXiv 2108.07755) that hands its class probabilities over without copying or joining them.

    Its label assigner copies those of the classes of an image's objects, and no others. Both losses, initial_loss_cls too,
    have to be of this package.
    """

    not_cut = 'its class scores are probabilities, means of what two branches say'


@MODELS.register_module()
class FusedDDODHead(ZeroCopyMixin, DDODHead):
    """DDODHead (arXiv 2107.02963) that hands its class logits over without copying or joining them.

    Its label assigners copy those of the classes of an image's objects, and no others.
    """

    not_cut = 'it weights the loss of each level by what is found for all'
