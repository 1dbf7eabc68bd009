"""What callers may pass, turned into the canonical form or refused with the value and the remedy."""

from __future__ import annotations
import sys
from numbers import Integral

import torch
from torch import Tensor

from focal_plugin.compatibility import is_compiling
from focal_plugin.parameters import number
from focal_plugin.tensors import FLOATS, INTEGERS, canonical_tensor, of_sums, records, summable
from focal_plugin.tracing import is_transformed

REDUCTIONS = ('none', 'mean', 'sum')
# What every backend reads as it lies; the rest is converted.
WEIGHTS = (torch.float32, torch.float16, torch.bfloat16)
DENSE = (*WEIGHTS, torch.bool, torch.uint8, torch.int64)
_AVG_FACTORS = (*FLOATS, *INTEGERS)
_SHORT = (torch.int16, torch.int8)


def check_reduction(reduction: str, avg_factor) -> None:
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:  # without a call more: every loss comes by here
        raise ValueError(f'Invalid reduction {reduction!r}: choose one of {", ".join(map(repr, REDUCTIONS))}')
    if reduction == 'sum' and avg_factor is not None:
        raise ValueError("avg_factor can't be used with reduction='sum': write reduction='mean' to divide by it")


class ReductionOverrideError(ValueError, AssertionError):
    """mmdet asserts that reduction_override is known; here it is a ValueError like any other."""


def is_reduction(value) -> bool:
    return isinstance(value, str) and value in REDUCTIONS


def checked_override(reduction_override) -> str:
    """The reduction of a call that replaces a loss's own."""
    if not is_reduction(reduction_override):
        raise ReductionOverrideError(
            f'reduction_override must be None or one of {REDUCTIONS}, got {reduction_override!r}'
        )
    return reduction_override


def canonical_loss_weight(loss_weight) -> float:
    loss_weight = number('loss_weight', loss_weight)
    if not abs(loss_weight) <= sys.float_info.max:
        raise ValueError(f'loss_weight must be a finite number, got {loss_weight!r}')
    return float(loss_weight)


def canonical_pred(pred: Tensor) -> Tensor:
    if not isinstance(pred, Tensor):
        raise TypeError(f'pred must be a tensor of logits, got {type(pred).__name__}')
    if not pred.is_floating_point() and not pred.is_quantized:
        raise TypeError(f'pred must be floating point (logits), got {pred.dtype}: write pred.float()')
    pred = canonical_tensor('pred', pred, FLOATS)
    if pred.dim() == 0:
        raise ValueError('pred must have at least one dimension, got a 0-d tensor: write pred.reshape(1)')
    return pred


def canonical_target(
    pred: Tensor, target, ignore_index: int | None, scored: bool = False
) -> tuple[Tensor, Tensor | None]:
    """(int64 labels of pred.shape[:-1], a score of each or None), or (dense values of pred's shape, None)."""
    score, is_pair = None, isinstance(target, (tuple, list))
    if is_pair:
        if not scored:
            raise TypeError(f'target must be a tensor, got {type(target).__name__}: this loss takes no scores')
        if len(target) != 2:
            raise ValueError(f'target must be a tensor or the pair (labels, scores), got {len(target)} values')
        target, score = target
    target = canonical_tensor('target', target, device=pred.device)
    if is_pair or target.dim() == pred.dim() - 1:
        if target.dtype not in INTEGERS:
            raise TypeError(
                f'target of shape {tuple(target.shape)} holds labels for pred of shape {tuple(pred.shape)}, so it must '
                f'be an integer tensor, got {target.dtype}: write target.long(), or pass dense values of the shape of pred'
            )
        if target.shape != pred.shape[:-1]:
            raise ValueError(
                f'labels must have the shape {tuple(pred.shape[:-1])} of pred {tuple(pred.shape)} without its last '
                f'dimension (the classes), got {tuple(target.shape)}'
            )
        labels = target if target.dtype is torch.int64 else target.long()
        return labels, _canonical_score(pred, labels, score) if is_pair else None
    if target.shape != pred.shape:
        raise ValueError(
            f'target must hold labels of shape {tuple(pred.shape[:-1])} or dense values of shape {tuple(pred.shape)}, '
            f'got {tuple(target.shape)}'
        )
    if ignore_index is not None:
        raise ValueError(
            f'ignore_index={ignore_index} needs labels; for a dense target write zeros into weight instead'
        )
    return target if target.dtype in DENSE or target.dtype == pred.dtype else target.to(torch.float32), None


def _canonical_score(pred: Tensor, labels: Tensor, score) -> Tensor:
    score = canonical_tensor('scores', score, device=pred.device)
    if score.shape != labels.shape:
        raise ValueError(
            f'scores must have the shape {tuple(labels.shape)} of the labels, one per row, got {tuple(score.shape)}'
        )
    return score if score.dtype in WEIGHTS or score.dtype == pred.dtype else score.to(torch.float32)


def canonical_weight(pred: Tensor, weight: Tensor) -> Tensor:
    """A view of the weight that broadcasts to pred's shape."""
    weight = canonical_tensor('weight', weight, device=pred.device)
    if not records(weight) and weight.dtype not in WEIGHTS and weight.dtype != pred.dtype:
        weight = weight.to(torch.float32)
    weight = summable(pred, weight)
    shape, rows = pred.shape, pred.shape[:-1]
    if weight.shape == rows:  # first: where N = C a weight of shape (N,) is one number per row
        if weight.requires_grad or is_compiling() or is_transformed():
            return weight.unsqueeze(-1).expand(shape)
        return weight.as_strided(shape, (*weight.stride(), 0))  # the same view at a third of the cost
    if weight.dim() == len(shape) and all(one in (1, all_) for one, all_ in zip(weight.shape, shape)):
        return weight.expand(shape)
    if weight.shape == (pred.numel(),):
        return weight.reshape(shape)
    raise ValueError(
        f'weight of shape {tuple(weight.shape)} does not fit pred of shape {tuple(shape)}: write one number per row '
        f'{tuple(rows)} or {(*rows, 1)}, one per element {tuple(shape)} or ({pred.numel()},), or one per class '
        f'{(*[1] * len(rows), shape[-1])}'
    )


def canonical_masks(
    pred: Tensor, target: Tensor, labels: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Masks with their pixels in one dimension: pred (n, P), or (n, C, P) with a channel (n,) each; target, weight."""
    target = canonical_tensor('target', target, device=pred.device)
    channel = None
    if target.dim() == pred.dim() - 1:
        if pred.dim() < 3 or target.shape != (pred.size(0), *pred.shape[2:]):
            raise ValueError(
                f'target of shape {tuple(target.shape)} does not fit pred of shape {tuple(pred.shape)}: masks of '
                f'(n, C, H, W) logits have the shape (n, H, W), those of (n, C, P) the shape (n, P)'
            )
        channel = _canonical_channel(pred, labels)
        pred = pred.flatten(2)
    elif target.shape != pred.shape or pred.dim() < 2:
        raise ValueError(
            f'target of shape {tuple(target.shape)} does not fit pred of shape {tuple(pred.shape)}: write masks of '
            f"pred's shape (n, H, W), or of one dimension less, (n, H, W) for (n, C, H, W), with labels"
        )
    elif labels is not None:
        raise ValueError(
            f"labels pick a channel of pred (n, C, H, W) for a target (n, H, W), but target has pred's shape "
            f'{tuple(pred.shape)}: leave labels out (weight=... is another argument)'
        )
    else:
        pred = pred.flatten(1)
    if (
        weight is not None
        and (weight := canonical_tensor('weight', weight, device=pred.device)).shape != target.shape[:1]
    ):
        if weight.shape != target.shape:
            raise ValueError(
                f'weight must be one number per instance {tuple(target.shape[:1])} or one per pixel '
                f'{tuple(target.shape)}, got {tuple(weight.shape)}'
            )
        weight = weight.flatten(1)
    return pred, target.flatten(1), channel, weight


def _canonical_channel(pred: Tensor, labels: Tensor | None) -> Tensor:
    instances, channels = pred.shape[:2]
    if labels is None:
        if channels != 1:
            raise ValueError(
                f'pred of shape {tuple(pred.shape)} has {channels} channels: write labels, one per instance, to pick one'
            )
        return torch.zeros(instances, dtype=torch.int64, device=pred.device)
    labels = canonical_tensor('labels', labels, device=pred.device)
    if labels.dtype not in INTEGERS or labels.shape != (instances,):
        raise ValueError(
            f'labels must be integers of shape ({instances},), one per instance of pred {tuple(pred.shape)}, got '
            f'{labels.dtype} of {tuple(labels.shape)}'
        )
    if channels == 0 and instances > 0:
        raise ValueError(f'pred of shape {tuple(pred.shape)} has no channels')
    return labels.long().contiguous()


def check_rows(pred: Tensor, target, weight) -> None:
    """What a loss over a softmax can't take: logits without classes, dense targets, weights of elements or classes."""
    rows = tuple(pred.shape[:-1])
    for name, tensor in (('target', target), ('weight', weight)):
        if isinstance(tensor, Tensor):
            canonical_tensor(name, tensor)
    if pred.size(-1) == 0:
        raise ValueError(f'a softmax needs classes: pred has the shape {tuple(pred.shape)}')
    if pred.size(-1) == 1:
        raise ValueError(
            f'a softmax over one class is 1 whatever its logit: pred has the shape {tuple(pred.shape)}. For one class '
            f'write the sigmoid loss (sigmoid_focal_loss, FusedFocalLoss)'
        )
    if isinstance(target, Tensor) and target.shape != rows:
        raise ValueError(
            f'target must hold labels of shape {rows} for pred of shape {tuple(pred.shape)}, got {tuple(target.shape)}: '
            f'a loss over a softmax takes no dense values (of one-hot rows write target.argmax(-1))'
        )
    if isinstance(weight, Tensor) and weight.shape not in (rows, (*rows, 1)):
        raise ValueError(
            f'weight must be one number per row, of shape {rows} or {(*rows, 1)}, got {tuple(weight.shape)}: a loss over a '
            f'softmax has one value per row (for weights of classes write a list into alpha)'
        )


def canonical_avg_factor(pred: Tensor, avg_factor) -> float | Tensor:
    """A number, or a tensor of shape () or (1,) on pred's device."""
    if type(avg_factor) is float:
        return avg_factor
    if not isinstance(avg_factor, Tensor):
        return number('avg_factor', avg_factor, 'a number or a tensor of one element')
    avg_factor = canonical_tensor('avg_factor', avg_factor, _AVG_FACTORS)
    if avg_factor.dtype in _SHORT:
        avg_factor = avg_factor.to(torch.int32)  # which every kernel reads
    if avg_factor.dim() > 1 or avg_factor.numel() != 1:
        raise ValueError(f'avg_factor must have the shape () or (1,), got {tuple(avg_factor.shape)}')
    if avg_factor.device != pred.device and avg_factor.is_cpu:
        return avg_factor.to(pred.device, non_blocking=True)
    return canonical_tensor('avg_factor', avg_factor, device=pred.device)


def canonical_ignore_index(ignore_index) -> int | None:
    if ignore_index is None:
        return None
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral):
        raise TypeError(f'ignore_index must be an integer label or None, got {ignore_index!r}')
    if not -(2**63) <= int(ignore_index) < 2**63:
        raise ValueError(f'ignore_index must be a label, which is an int64, got {ignore_index!r}')
    return int(ignore_index)


def check_statistics(pred: Tensor, statistics: Tensor) -> None:
    canonical_tensor('statistics', statistics, device=pred.device)
    shape = (2, pred.size(-1))
    dtype = of_sums(pred.device)
    if statistics.shape != shape or statistics.dtype is not dtype or not statistics.is_contiguous():
        raise ValueError(
            f'statistics must be a contiguous {str(dtype)[6:]} tensor of shape {shape}, got {statistics.dtype} of '
            f'{tuple(statistics.shape)}'
        )
