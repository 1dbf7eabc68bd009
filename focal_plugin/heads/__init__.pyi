"""mmdet's dense heads without the copies of their logits; importing this package registers them.

Written by python -m tools.maintain.stubs.
"""

from abc import ABCMeta

from mmdet.models.dense_heads.atss_head import ATSSHead
from mmdet.models.dense_heads.condinst_head import CondInstBboxHead
from mmdet.models.dense_heads.ddod_head import DDODHead
from mmdet.models.dense_heads.fcos_head import FCOSHead
from mmdet.models.dense_heads.gfl_head import GFLHead
from mmdet.models.dense_heads.retina_head import RetinaHead
from mmdet.models.dense_heads.rtmdet_head import RTMDetHead, RTMDetSepBNHead
from mmdet.models.dense_heads.rtmdet_ins_head import RTMDetInsHead, RTMDetInsSepBNHead
from mmdet.models.dense_heads.tood_head import TOODHead
from mmdet.models.dense_heads.vfnet_head import VFNetHead

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

class FusedRetinaHead(ZeroCopyMixin, RetinaHead, metaclass=ABCMeta):
    """RetinaHead (arXiv 1708.02002) that hands its class logits over without copying them."""

    class_convolution: str

class FusedATSSHead(ZeroCopyMixin, ATSSHead, metaclass=ABCMeta):
    """ATSSHead (arXiv 1912.02424) that hands its class logits over without copying them."""

    class_convolution: str

class FusedFCOSHead(ZeroCopyMixin, FCOSHead, metaclass=ABCMeta):
    """FCOSHead (arXiv 1904.01355) that hands its class logits over without copying or joining them."""

    class_convolution: str

class FusedCondInstBboxHead(ZeroCopyMixin, CondInstBboxHead, metaclass=ABCMeta):
    """CondInstBboxHead (arXiv 2003.05664) that hands its class logits over without copying or joining them.

    The scores that a limit of masks goes by are found from the positives' logits alone.
    """

    class_convolution: str
    def get_positive_infos(self) -> list:
        """The stock head's, once for each loss: what it has kept for them is let go, not held until the next loss."""

class FusedGFLHead(ZeroCopyMixin, GFLHead, metaclass=ABCMeta):
    """GFLHead (arXiv 2006.04388) that hands its class logits over without copying them.

    The weights of its box losses, the greatest probability of each positive, are found from the positives' logits alone.
    """

    class_convolution: str

class FusedVFNetHead(ZeroCopyMixin, VFNetHead, metaclass=ABCMeta):
    """VFNetHead (arXiv 2008.13367) that hands its class logits over without copying or joining them.

    A loss that takes (labels, scores), as FusedVarifocalLoss does, gets its targets so. For any other the dense targets are
    made as in VFNetHead, as large as the logits.
    """

    class_convolution: str

class FusedRTMDetHead(ZeroCopyMixin, RTMDetHead, metaclass=ABCMeta):
    """RTMDetHead (arXiv 2212.07784) that hands its class logits over without copying or joining them.

    Its label assigner copies the logits of the points that lie in objects, and no others.
    """

    not_cut: str

class FusedRTMDetSepBNHead(ZeroCopyMixin, RTMDetSepBNHead, metaclass=ABCMeta):
    """RTMDetSepBNHead (arXiv 2212.07784), the head of RTMDet's configs, that copies no class logits, as FusedRTMDetHead."""

    not_cut: str

class FusedRTMDetInsHead(ZeroCopyMixin, RTMDetInsHead, metaclass=ABCMeta):
    """RTMDetInsHead (arXiv 2212.07784), which learns masks, and copies no class logits, as FusedRTMDetHead."""

    not_cut: str

class FusedRTMDetInsSepBNHead(ZeroCopyMixin, RTMDetInsSepBNHead, metaclass=ABCMeta):
    """RTMDetInsSepBNHead (arXiv 2212.07784), the head of RTMDet-Ins's configs, that copies no class logits."""

    not_cut: str

class FusedTOODHead(ZeroCopyMixin, TOODHead, metaclass=ABCMeta):
    """TOODHead (arXiv 2108.07755) that hands its class probabilities over without copying or joining them.

    Its label assigner copies those of the classes of an image's objects, and no others. Both losses, initial_loss_cls too,
    have to be of this package.
    """

    not_cut: str

class FusedDDODHead(ZeroCopyMixin, DDODHead, metaclass=ABCMeta):
    """DDODHead (arXiv 2107.02963) that hands its class logits over without copying or joining them.

    Its label assigners copy those of the classes of an image's objects, and no others.
    """

    not_cut: str
