"""mmdet's way of the focal loss, by mmcv's compiled op, where the kernels here can't be compiled and a GPU would wait."""

from __future__ import annotations
import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from mmcv.ops import sigmoid_focal_loss
from mmdet.models.losses import FocalLoss
from torch import Tensor

from focal_plugin import backend

if TYPE_CHECKING:
    from focal_plugin.losses.base import FusedLoss

logger = logging.getLogger('focal_plugin')

DTYPES = (torch.float32, torch.float16, torch.float64)


@functools.lru_cache(maxsize=None)
def _runs(device: torch.device) -> bool:
    """Whether mmcv was built for a GPU; says once that its op serves."""
    try:
        sigmoid_focal_loss(
            torch.zeros(1, 1, device=device), torch.zeros(1, dtype=torch.int64, device=device), 2.0, 0.25
        )
    except (RuntimeError, NotImplementedError):
        return False
    logger.warning("%s: mmdet's focal loss with mmcv's op serves on %s for labels", backend.NO_COMPILER, device)
    return True


def serves(loss: FusedLoss, pred: Any, target: Any, weight: Any, given: Mapping[str, Any]) -> bool:
    """Whether mmdet's own forward, on a GPU, takes a call: labels, in a dtype that mmcv's op has, and nothing of ours.

    Args:
        loss: that is called.
        pred, target, weight: of the call, not looked at yet.
        given: statistics, channels and parameters of the call.
    """
    if not isinstance(loss, FocalLoss) or any(each is not None for each in given.values()):
        return False
    device = getattr(pred, 'device', None)
    if not isinstance(device, torch.device) or not backend.lacks_compiler(device.type):
        return False
    return (
        pred.dtype in DTYPES
        and len(pred.shape) == 2
        and pred.shape[0] > 0
        and isinstance(target, Tensor)
        and target.dim() == 1
        and target.dtype == torch.int64
        and (weight is None or (isinstance(weight, Tensor) and weight.dim() == 1))
        and not any(value is None or isinstance(value, Tensor) for value in (loss.gamma, loss.alpha))
        and loss.ignore_index is None
        and loss.class_weight is None
        and not loss.takes_probabilities
        and (isinstance(pred, Tensor) or pred.levels.are_held)
        and _runs(device)
    )
