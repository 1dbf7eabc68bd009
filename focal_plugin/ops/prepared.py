"""Losses on a CPU that are like one before, which go to the kernel without being checked and filled in again.

What a call is checked for, which backend serves it and what the kernel is told follow from shapes, strides, dtypes and
numbers: they are its key here. The kernel itself looks at labels and targets. Of few logits the checks are most of the time.
"""

from __future__ import annotations
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from focal_plugin import backend
from focal_plugin.kernels.problem import SCALE, TENSORS, Problem, divided
from focal_plugin.ops import autograd
from focal_plugin.tracing import is_watched

MOST = 256  # keys, each with a structure of 4 KiB: training on images of many sizes makes hundreds


class _Prepared(NamedTuple):
    """What is left of a problem without its tensors.

    Attributes:
        pass_: gives sum and gradient.
        weight: shape and strides of the weight, of pred's dimensions.
        settings: the problem's, with the scale of the first call.
    """

    pass_: Callable
    weight: tuple[Any, Any] | None
    settings: tuple


_known: dict[Hashable, _Prepared | None] = {}
"""None for what came once, or can't be prepared."""


def loss_of(
    asked: Hashable, loss_weight: float, pred, target, weight, avg_factor, make: Callable[[], Problem]
) -> Tensor:
    """The loss of a call of a class.

    Args:
        asked: all that the problem depends on beside the other arguments.
        loss_weight: what avg_factor divides.
        make: checks the call and makes its problem.
    """
    key = _key(asked, pred, target, weight, avg_factor)
    if key is None:
        return autograd.loss_of(make())
    known = _known.get(key)
    if known is None:
        problem = make()
        came = key in _known
        if len(_known) >= MOST:
            _known.clear()
        # Prepared when it comes a second time: of images of many sizes few calls are alike.
        _known[key] = _prepared(problem, pred, target, weight) if came else None
        return autograd.loss_of(problem)
    settings = known.settings
    if avg_factor is not None:
        settings = (*settings[:SCALE], float(divided(loss_weight, avg_factor)), *settings[SCALE + 1 :])
    target, score = target if isinstance(target, tuple) else (target, None)
    if known.weight is not None:
        weight = weight.as_strided(*known.weight)
    return autograd.prepared_loss_of(known.pass_, settings, (pred, target, score, weight, None, None, None))


def _key(asked: Hashable, pred, target, weight, avg_factor) -> Hashable | None:
    """A key of calls that differ in values alone; None where something else may matter."""
    if not pred.requires_grad:
        return None
    if avg_factor is not None and type(avg_factor) is not float and type(avg_factor) is not int:
        return None
    if not torch.is_grad_enabled() or is_watched():
        return None
    key: list[Any] = [asked, backend.forced, type(target), avg_factor is None]
    for tensor in (pred, *_parts(target), weight):
        if tensor is None:
            key.append(None)
            continue
        if type(tensor) is not Tensor or not tensor.is_cpu or tensor.layout is not torch.strided or tensor.is_nested:
            return None
        if tensor.is_neg() or tensor._is_zerotensor() or (tensor.requires_grad and tensor is not pred):
            return None
        key.append((tensor.dtype, tensor.shape, tensor.stride()))
    return tuple(key)


def _parts(target) -> Sequence[Any]:
    """The labels and their scores, or what is one target."""
    return target if isinstance(target, tuple) else (target,)


def _prepared(problem: Problem, pred: Tensor, target, weight: Tensor | None) -> _Prepared | None:
    """What calls like that of a problem need; None where the kernel does not read the tensors of the call themselves."""
    given = (pred, *target) if isinstance(target, tuple) else (pred, target, None)
    if any(one is not each for one, each in zip(given, (problem.pred, problem.target, problem.score))):
        return None  # the call's own were converted, or scores made of its labels
    of_weights = [None if each is None else each.data_ptr() for each in (weight, problem.weight)]
    if of_weights[0] != of_weights[1]:  # one was made, by the labels of this call perhaps
        return None
    pass_ = autograd.prepared(problem)
    if pass_ is None:
        return None
    place = None if problem.weight is None else (problem.weight.shape, problem.weight.stride())
    return _Prepared(pass_, place, problem[TENSORS:])
