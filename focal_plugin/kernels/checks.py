"""Checks that look at values. They run on the CPU only: on a GPU looking would synchronise."""

from __future__ import annotations

import torch
from torch import Tensor

from focal_plugin.compatibility import aminmax
from focal_plugin.kernels.problem import Problem
from focal_plugin.tracing import may_look

_OF_HALVES = 1 / 32
"""How far above 1 the IoU of boxes of a half type may be, whatever its own dtype: two roundings of an area in bfloat16, or
one of an area that float16 holds as a subnormal number, which mmdet's epsilon bounds."""


def _has_background(problem: Problem) -> bool:
    """Whether label C is the background, all of whose targets are 0; over a softmax it would be a class without a logit."""
    return problem.spec.family == 'elementwise'


def _is_ignored(problem: Problem) -> Tensor | None:
    """Which rows are left out, or None."""
    if problem.ignore_index is None or not problem.has_labels:
        return None
    return problem.target == problem.ignore_index


def check_labels(problem: Problem) -> None:
    """Raises ValueError for a label that no class has and that is not ignored."""
    if not problem.has_labels or not may_look(problem.target):
        return
    bad = (problem.target < 0) | (problem.target >= problem.pred.size(-1) + _has_background(problem))
    ignored = _is_ignored(problem)
    if ignored is not None:
        bad &= ~ignored
    if bad.any():
        raise bad_label(int(problem.target[bad][0]), problem)


def bad_label(label: int, problem: Problem) -> ValueError:
    classes, name = problem.pred.size(-1), problem.spec.function
    if _has_background(problem):
        range_, background = f'[0, {classes}]', f'and {classes} for the background'
    else:
        range_, background = f'[0, {classes})', 'the background, if there is one, among them'
    return ValueError(
        f'label {label} is outside {range_}: logits of {classes} classes (C) take labels 0 to {classes - 1}, {background}. '
        f'Does num_classes match the annotations? To leave such rows out write ignore_index={label}, an argument of '
        f"functional.{name}() and of its class (loss_cls=dict(..., ignore_index={label})), of mmsegmentation's decode heads"
    )


def check_channels(problem: Problem) -> None:
    """Raises ValueError for a label of a mask that no channel has."""
    if problem.channel is None or not may_look(problem.channel):
        return
    bad = (problem.channel < 0) | (problem.channel >= problem.pred.size(1))
    if bad.any():
        raise bad_channel(int(problem.channel[bad][0]), problem)


def bad_channel(label: int, problem: Problem) -> ValueError:
    channels = problem.pred.size(1)
    return ValueError(
        f'label {label} is outside [0, {channels}): masks of {channels} channels take labels 0 to {channels - 1}, and a '
        f'mask has no background class. Does num_classes match the annotations? (Class-agnostic masks take label 0.)'
    )


def check_probabilities(problem: Problem) -> None:
    """Raises ValueError for a probability outside [0, 1]."""
    if not problem.activated or not may_look(problem.pred) or problem.pred.numel() == 0:
        return
    pred = problem.pred.detach()
    if problem.channel is not None:
        check_channels(problem)
        pred = pred[torch.arange(pred.size(0), device=pred.device), problem.channel]
    if _is_within(pred):
        return
    ignored = _is_ignored(problem)
    low, high = _ends(pred if ignored is None else pred[~ignored])
    if low < 0 or high > 1:
        flag = problem.spec.probabilities
        given = flag == 'activated'
        raise ValueError(
            f'{flag}={given} takes probabilities in [0, 1], got values from {low:g} to {high:g}: for logits write '
            f'{flag}={not given}'
        )


def targets_in_range(
    pred: Tensor, target: Tensor, score: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor | None]:
    """(dense target or labels, scores) in [0, 1]: what rounding brought just out of it is its end.

    So are scores up to 1.03: under autocast DETR's kin have boxes of a half type. Where nobody may look
    they stay as they are.

    Raises:
        ValueError: a dense target, or the score of a positive that is not ignored, is farther outside.
    """
    is_dense = target.dim() == pred.dim()
    values = target if is_dense else score
    if values is None or values.dtype == torch.bool or not may_look(values):
        return target, score
    used = values.detach()
    if _is_within(used):
        return target, score
    if not is_dense:
        is_used = (target >= 0) & (target < pred.size(-1))
        used = used[is_used if ignore_index is None else is_used & (target != ignore_index)]
    low, high = _ends(used)
    rounding = 4 * torch.finfo(used.dtype).eps if used.is_floating_point() else 0.0
    if low < -rounding or high > 1 + (rounding if is_dense else _OF_HALVES):
        name = 'a dense target holds' if is_dense else 'scores of labels are'
        remedy = 'divide masks of 0 and 255 by 255; weight leaves elements out' if is_dense else 'clamp them'
        raise ValueError(f'{name} values in [0, 1], got values from {low:g} to {high:g}: {remedy}')
    clamped = values.clamp(0, 1)
    # Its gradient is that of a target that was not clamped.
    values = values + (clamped - values).detach() if values.requires_grad else clamped
    return (values, score) if is_dense else (target, values)


def _is_within(values: Tensor) -> bool:
    """Whether all values lie in [0, 1], NaN left aside."""
    low, high = _ends(values)
    return low >= 0 and high <= 1


def _ends(values: Tensor) -> tuple[float, float]:
    """The least and the greatest value, NaN left aside; zeros where there is none."""
    if values.numel() == 0:
        return 0.0, 0.0
    in_memory = sorted(range(values.dim()), key=values.stride, reverse=True)  # in any other order aminmax copies them
    low, high = (float(end) for end in aminmax(values.permute(in_memory)))
    return (low, high) if low == low else _ends(values[values == values])
