"""What callers may pass, turned into the canonical form or refused with the value and the remedy."""

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import numpy
import torch
from torch import Tensor

from focal_plugin.math.spec import REQUIRED, Parameter

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


def canonical_target(
    pred: Tensor, target, ignore_index: int | None, scored: bool = False
) -> tuple[Tensor, Tensor | None]:
    """(int64 labels of pred.shape[:-1], a score of each or None), or (dense values of pred's shape, None)."""
    if isinstance(target, (tuple, list)):
        if not scored:
            raise TypeError(f'target must be a tensor, got {type(target).__name__}: this loss takes no scores')
        if len(target) != 2:
            raise ValueError(f'target must be a tensor or the pair (labels, scores), got {len(target)} values')
        labels = _canonical_labels(pred, target[0])
        return labels, _canonical_score(pred, labels, target[1])
    on_device_of(pred, 'target', target)
    if target.dim() == pred.dim() - 1:
        return _canonical_labels(pred, target), None
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
    return target if target.dtype in DENSE or target.dtype == pred.dtype else target.to(torch.float32), None


def _canonical_labels(pred: Tensor, labels: Tensor) -> Tensor:
    on_device_of(pred, 'target', labels)
    if labels.dtype not in INTEGERS:
        raise TypeError(
            f'target of shape {tuple(labels.shape)} holds labels for pred of shape {tuple(pred.shape)}, so it must be '
            f'an integer tensor, got {labels.dtype}: write target.long(), or pass dense values of the shape of pred'
        )
    if labels.shape != pred.shape[:-1]:
        raise ValueError(
            f'labels must have the shape {tuple(pred.shape[:-1])} of pred {tuple(pred.shape)} without its last '
            f'dimension (the classes), got {tuple(labels.shape)}'
        )
    return labels if labels.dtype is torch.int64 else labels.long()


def _canonical_score(pred: Tensor, labels: Tensor, score: Tensor) -> Tensor:
    on_device_of(pred, 'scores', score)
    if score.shape != labels.shape:
        raise ValueError(
            f'scores must have the shape {tuple(labels.shape)} of the labels, one a row, got {tuple(score.shape)}'
        )
    if score.is_complex():
        raise TypeError(f'scores must be real, got {score.dtype}')
    return score if score.dtype in WEIGHTS or score.dtype == pred.dtype else score.to(torch.float32)


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


def canonical_masks(
    pred: Tensor, target: Tensor, labels: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Masks with their pixels in one dimension: pred (n, P), or (n, C, P) with a channel (n,) each; target, weight."""
    on_device_of(pred, 'target', target)
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
    if isinstance(weight, Tensor) and weight.shape != target.shape[:1]:
        if weight.shape != target.shape:
            raise ValueError(
                f'weight must be one number an instance {tuple(target.shape[:1])} or one a pixel '
                f'{tuple(target.shape)}, got {tuple(weight.shape)}'
            )
        weight = weight.flatten(1)
    return pred, target.flatten(1), channel, weight


def _canonical_channel(pred: Tensor, labels: Tensor | None) -> Tensor:
    instances, channels = pred.shape[:2]
    if labels is None:
        if channels != 1:
            raise ValueError(
                f'pred of shape {tuple(pred.shape)} has {channels} channels: write labels, one an instance, to pick one'
            )
        return torch.zeros(instances, dtype=torch.int64, device=pred.device)
    on_device_of(pred, 'labels', labels)
    if labels.dtype not in INTEGERS or labels.shape != (instances,):
        raise ValueError(
            f'labels must be integers of shape ({instances},), one an instance of pred {tuple(pred.shape)}, got '
            f'{labels.dtype} of {tuple(labels.shape)}'
        )
    if channels == 0 and instances > 0:
        raise ValueError(f'pred of shape {tuple(pred.shape)} has no channels')
    return labels.long().contiguous()


def check_rows(pred: Tensor, target, weight) -> None:
    """What a loss over a softmax can't take: logits without classes, dense targets, weights of elements or classes."""
    rows = tuple(pred.shape[:-1])
    if pred.size(-1) == 0:
        raise ValueError(f'a softmax needs classes: pred has the shape {tuple(pred.shape)}')
    if isinstance(target, Tensor) and target.shape != rows:
        raise ValueError(
            f'target must hold labels of shape {rows} for pred of shape {tuple(pred.shape)}, got {tuple(target.shape)}: '
            f'a loss over a softmax takes no dense values (of one-hot rows write target.argmax(-1))'
        )
    if isinstance(weight, Tensor) and weight.shape not in (rows, (*rows, 1)):
        raise ValueError(
            f'weight must be one number a row, of shape {rows} or {(*rows, 1)}, got {tuple(weight.shape)}: a loss over a '
            f'softmax has one value a row (for weights of classes write a list into alpha)'
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


def check_number(parameter: Parameter, value) -> None:
    name = parameter.name
    if isinstance(value, bool) or not isinstance(value, Integral if parameter.whole else Real):
        kind = 'a whole number' if parameter.whole else 'a number'
        vector = ', or a sequence or tensor of one a class' if parameter.vector else ''
        raise TypeError(f'{name} must be {kind}{vector}, got {value!r}')
    inside = parameter.low < value if parameter.above else parameter.low <= value
    if not (inside and value <= parameter.high) or abs(value) == math.inf:
        raise ValueError(f'{name} must be {parameter.range}, got {value!r}')


def check_parameter(parameter: Parameter, value, classes: int | None = None, device=None):
    """The checked value of a variant's argument: a number, a string, a tensor of one number a class, or None.

    The values of a tensor on a GPU are not looked at: that would synchronise.
    """
    name = parameter.name
    if value is REQUIRED:
        raise TypeError(f'{name} must be given: {parameter.doc[0].lower()}{parameter.doc[1:]}')
    if parameter.optional and (value is None or (isinstance(value, Real) and value is not False and value < 0)):
        return None
    if isinstance(parameter.default, bool) or parameter.choices:
        if value not in (parameter.choices or (True, False)):
            raise ValueError(f'{name} must be {parameter.range}, got {value!r}')
        return value
    if parameter.sequence:
        if isinstance(value, str) or not isinstance(value, (Sequence, Tensor)):
            raise TypeError(f'{name} must be a sequence of one number a class, got {value!r}')
        numbers = tuple(value.tolist() if isinstance(value, Tensor) else value)
        for v in numbers:
            check_number(parameter, v)
        return numbers
    if not parameter.vector or isinstance(value, (Real, str)):
        check_number(parameter, value)
        return value if parameter.whole else float(value)
    if isinstance(value, Tensor):
        if value.device.type == 'cpu' and not torch.compiler.is_compiling():
            for v in value.detach().flatten().tolist():
                check_number(parameter, v)
        vector = value
    elif isinstance(value, Sequence):
        for v in value:
            check_number(parameter, v)
        vector = torch.tensor(value, dtype=torch.float32)
    else:
        check_number(parameter, value)
        return float(value)
    if vector.dim() > 1 or (classes is not None and vector.dim() == 1 and vector.numel() != classes):
        raise ValueError(
            f'{name} must be a number or hold one number for each of the {classes} classes, got the shape '
            f'{tuple(vector.shape)}'
        )
    return vector if device is None else vector.to(device, non_blocking=vector.device.type == 'cpu')


def check_ignore_index(ignore_index) -> None:
    if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral)):
        raise TypeError(f'ignore_index must be an integer label or None, got {ignore_index!r}')


def check_statistics(pred: Tensor, statistics: Tensor | None) -> None:
    if statistics is None:
        return
    on_device_of(pred, 'statistics', statistics)
    shape = (2, pred.size(-1))
    if statistics.shape != shape or statistics.dtype is not torch.float64 or not statistics.is_contiguous():
        raise ValueError(
            f'statistics must be a contiguous float64 tensor of shape {shape}, got {statistics.dtype} of '
            f'{tuple(statistics.shape)}'
        )


def unknown(owner: str, name: str, known: Iterable[str], remedy: str = '') -> str:
    """The message for an argument that an owner does not know.

    Args:
        owner: a function or class.
        known: the owner's own arguments, from which a misspelt one is guessed.
        remedy: what to write instead, if that is known better.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    guess = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(known)}'
    return f'{owner} has no argument {name!r}: {remedy or guess}'


def check_flag(name: str, value) -> bool:
    """The bool of a flag."""
    if isinstance(value, (bool, numpy.bool_)) or (isinstance(value, Integral) and value in (0, 1)):
        return bool(value)
    raise ValueError(f'{name} must be True or False, got {value!r}')


def number(name: str, value) -> float | int:
    """Python's number of a number; NaN is one."""
    if isinstance(value, (bool, numpy.bool_)) or not isinstance(value, Real):
        raise TypeError(f'{name} must be a number, got {value!r}')
    try:
        return int(value) if isinstance(value, Integral) else float(value)
    except OverflowError as error:
        raise ValueError(f'{name} must be a number that a float can hold, got {value!r}') from error
