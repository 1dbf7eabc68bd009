"""What callers may pass, turned into the canonical form or refused with the value and the remedy."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

REDUCTIONS = ('none', 'mean', 'sum')
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# What every backend reads as it lies; the rest is converted.
WEIGHTS = (torch.float32, torch.float16, torch.bfloat16)
DENSE = (*WEIGHTS, torch.bool, torch.uint8, torch.int64)


def check_reduction(reduction: str, avg_factor) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f'Invalid reduction {reduction!r}: choose one of {", ".join(map(repr, REDUCTIONS))}')
    if reduction == 'sum' and avg_factor is not None:
        raise ValueError("avg_factor can't be used with reduction='sum': write reduction='mean' to divide by it")


def check_pred(pred: Tensor) -> None:
    if not isinstance(pred, Tensor):
        raise TypeError(f'pred must be a tensor of logits, got {type(pred).__name__}')
    if not pred.is_floating_point():
        raise TypeError(f'pred must be floating point (logits), got {pred.dtype}: write pred.float()')
    if pred.dim() == 0:
        raise ValueError('pred must have at least one dimension, got a 0-d tensor: write pred.reshape(1)')


def on_device_of(pred: Tensor, name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f'{name} must be a tensor, got {type(tensor).__name__}')
    if tensor.device != pred.device:
        raise ValueError(f'{name} is on {tensor.device}, pred on {pred.device}: write {name}.to(pred.device)')


def canonical_target(pred: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """int64 labels of pred.shape[:-1], or dense values of pred's shape."""
    on_device_of(pred, 'target', target)
    if target.dim() == pred.dim() - 1:
        if target.dtype not in INTEGERS:
            raise TypeError(
                f'target of shape {tuple(target.shape)} holds labels for pred of shape {tuple(pred.shape)}, so it must be '
                f'an integer tensor, got {target.dtype}: write target.long(), or pass dense values of the shape of pred'
            )
        if target.shape != pred.shape[:-1]:
            raise ValueError(
                f'labels must have the shape {tuple(pred.shape[:-1])} of pred {tuple(pred.shape)} without its last '
                f'dimension (the classes), got {tuple(target.shape)}'
            )
        return target if target.dtype is torch.int64 else target.long()
    if target.shape != pred.shape:
        raise ValueError(
            f'target must hold labels of shape {tuple(pred.shape[:-1])} or dense values of shape {tuple(pred.shape)}, '
            f'got {tuple(target.shape)}'
        )
    if ignore_index is not None:
        raise ValueError(
            f'ignore_index={ignore_index} needs labels; for a dense target write zeros into weight instead'
        )
    if target.is_complex():
        raise TypeError(f'target must be real, got {target.dtype}')
    return target if target.dtype in DENSE or target.dtype == pred.dtype else target.to(torch.float32)


def canonical_weight(pred: Tensor, weight: Tensor | None) -> Tensor | None:
    """A view of the weight that broadcasts to pred's shape."""
    if weight is None:
        return None
    on_device_of(pred, 'weight', weight)
    if weight.is_complex():
        raise TypeError(f'weight must be real, got {weight.dtype}')
    if weight.dtype not in WEIGHTS and weight.dtype != pred.dtype:
        weight = weight.to(torch.float32)
    shape, rows = pred.shape, pred.shape[:-1]
    if weight.shape == rows:  # first: where N = C a weight of shape (N,) is one number a row
        if weight.requires_grad or torch.compiler.is_compiling():
            return weight.unsqueeze(-1).expand(shape)
        return weight.as_strided(shape, (*weight.stride(), 0))  # the same view at a third of the cost
    if weight.shape in (shape, (*rows, 1), (*[1] * len(rows), shape[-1])):
        return weight.expand(shape)
    if weight.shape == (pred.numel(),):
        return weight.reshape(shape)
    raise ValueError(
        f'weight of shape {tuple(weight.shape)} does not fit pred of shape {tuple(shape)}: write one number a row '
        f'{tuple(rows)} or {(*rows, 1)}, one an element {tuple(shape)} or ({pred.numel()},), or one a class '
        f'{(*[1] * len(rows), shape[-1])}'
    )


def canonical_avg_factor(pred: Tensor, avg_factor) -> float | Tensor | None:
    """None, a number, or a tensor of shape () or (1,) on pred's device."""
    if avg_factor is None or type(avg_factor) is float:
        return avg_factor
    if not isinstance(avg_factor, Tensor):
        if isinstance(avg_factor, bool) or not isinstance(avg_factor, (Real, torch.SymInt, torch.SymFloat)):
            raise TypeError(f'avg_factor must be a number or a tensor of one element, got {type(avg_factor).__name__}')
        return avg_factor
    if avg_factor.dim() > 1 or avg_factor.numel() != 1:
        raise ValueError(f'avg_factor must have the shape () or (1,), got {tuple(avg_factor.shape)}')
    if avg_factor.device != pred.device:
        if avg_factor.device.type != 'cpu':
            on_device_of(pred, 'avg_factor', avg_factor)
        return avg_factor.to(pred.device, non_blocking=True)
    return avg_factor


def check_number(name: str, value: Real, low: float, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f'{name} must be a number, or a sequence or tensor of one a class, got {value!r}')
    if not low <= value <= high or math.isinf(value):
        bounds = f'at least {low:g}' if high == math.inf else f'in [{low:g}, {high:g}]'
        raise ValueError(f'{name} must be {bounds}, got {value!r}')


def parameter(name: str, value, low: float, high: float = math.inf, classes: int | None = None, device=None):
    """A checked parameter: the number itself, or a tensor of one number a class.

    The values of a tensor on a GPU are not looked at: that would synchronise.
    """
    if isinstance(value, Tensor):
        if value.device.type == 'cpu' and not torch.compiler.is_compiling():
            for v in value.detach().flatten().tolist():
                check_number(name, v, low, high)
        vector = value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for v in value:
            check_number(name, v, low, high)
        vector = torch.tensor(value, dtype=torch.float32)
    else:
        check_number(name, value, low, high)
        return float(value)
    if vector.dim() > 1 or (classes is not None and vector.dim() == 1 and vector.numel() != classes):
        raise ValueError(
            f'{name} must be a number or hold one number for each of the {classes} classes, got the shape '
            f'{tuple(vector.shape)}'
        )
    return vector if device is None else vector.to(device)


def check_ignore_index(ignore_index) -> None:
    if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral)):
        raise TypeError(f'ignore_index must be an integer label or None, got {ignore_index!r}')


def alpha_parameter(alpha, classes: int | None = None, device=None):
    """alpha in [0, 1], a number or a tensor of one a class; None for None or a negative number."""
    if alpha is None or (isinstance(alpha, Real) and not isinstance(alpha, bool) and alpha < 0):
        return None
    return parameter('alpha', alpha, 0, 1, classes, device)
