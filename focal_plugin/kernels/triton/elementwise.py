"""The Triton backend's elementwise family: which kernel runs, over which tiles, and with which arguments."""

from __future__ import annotations
from collections.abc import Sequence

import torch
from torch import Tensor

from focal_plugin.kernels.layout import layout_of
from focal_plugin.kernels.problem import Problem, contiguous
from focal_plugin.kernels.triton import flat, launches, operands, points, sums, tiles
from focal_plugin.kernels.triton.launches import Launch

IN_PLACE = False  # flat_kernel could, but not tiled_kernel: see there
GATHERS = False


def launch_of(
    problem: Problem, out: Tensor | None = None, upstream: Tensor | None = None, gathers: bool = False
) -> Launch | None:
    """The launch that writes out; None for strides that layout_of refuses.

    Of a sum without an upstream gradient it writes the parts, and beside them into out, if there is one, the gradient.
    """
    value = upstream is None
    gradient = not value or (problem.reduces and out is not None)
    by_row = out is not None and problem.output == 'row' and not gradient
    read = out if out is None or by_row else problem.selected(out)
    layout = layout_of(problem, read, None if problem.reduces else upstream, gathers)
    if layout is None:
        return None
    pred = problem.pred
    numbers = {**points.numbers(problem), 'largest': torch.finfo(pred.dtype).max}
    constants = {
        **points.constants(problem, gradient),
        'VALUE': value,
        'LABELS': problem.has_labels,
        'HAS_SCORE': problem.score is not None,
        'WEIGHT': layout.weight,
        'ACTIVATED': problem.activated,
        'EPSILON': problem.spec.probability_epsilon,
        'MOSTLY_ZERO': problem.mostly_zero,
    }
    grid = (layout.programs, layout.splits, 1)
    if layout.flat:
        numbers, constants = {**flat.numbers(layout), **numbers}, {**constants, **flat.constants(layout)}
        return Launch(flat.flat_kernel, grid, layout.warps, numbers, constants, layout)
    has_channel = problem.channel is not None
    numbers = {
        **numbers,
        **layout.numbers,
        'channels': pred.size(1) if has_channel else 0,
        'x_channel': pred.stride(1) if has_channel else 0,
        'o_channel': out.stride(1) if has_channel and gradient and out is not None else 0,
        'span': layout.span,
        'o_split': out.numel() if by_row and out is not None else 0,
    }
    constants = {
        **constants,
        **operands.constants(layout),
        'STATISTICS': gathers,
        'MASK_C': layout.masks_classes,
        'NARROW': layout.classes if layout.narrow else 0,
        'HAS_CHANNEL': has_channel,
        'SPLIT': layout.may_split,
    }
    return Launch(tiles.tiled_kernel, grid, layout.warps, numbers, constants, layout)


def launch(
    problem: Problem, like: Launch, out: Tensor | None = None, upstream: Tensor | None = None,
    partial: Tensor | None = None, first: int = 0,
) -> None:  # fmt: skip
    """Launches on a problem's tensors; the parts of a sum begin at the first-th place of partial."""
    by_row, labels = like.layout.weight == 'row', problem.has_labels
    tensors = {
        'x_ptr': problem.pred,
        'label_ptr': problem.target if labels else None,
        'score_ptr': problem.score,
        'row_weight_ptr': problem.weight if by_row else None,
        'target_ptr': None if labels else problem.target,
        'weight_ptr': None if by_row else problem.weight,
        'upstream_ptr': upstream,
        'avg_ptr': problem.avg_factor,
        'per_class_ptr': problem.per_class_parameters,
    }
    if not like.layout.flat:
        tensors['channel_ptr'] = problem.channel
    tensors.update({'partial_ptr': partial, 'out_ptr': out})
    like(tensors, scale=problem.scale, first=first)


def _stored(problem: Problem, upstream: Tensor | None = None, statistics: Tensor | None = None) -> Tensor:
    """One value per element or row, or one gradient per element."""
    pred = problem.selected(problem.pred)
    by_row = upstream is None and problem.output == 'row'
    if by_row:
        out = pred.new_empty(pred.shape[:-1])
    elif problem.channel is None:
        out = torch.empty_like(pred)
    else:
        out = torch.zeros_like(problem.pred)
    if pred.numel() == 0:
        return out.zero_()
    gathers = statistics is not None
    like = launches.like(problem, upstream, lambda: launch_of(problem, out, upstream, gathers), gathers)
    if like is None:
        # In pred's own strides, as the fake operators say.
        return out.copy_(_stored(contiguous(problem), None if upstream is None else upstream.contiguous(), statistics))
    if by_row and like.layout.splits > 1:
        parts = pred.new_empty((like.layout.splits, *out.shape), dtype=torch.float32)
        launch(problem, like, parts)
        return parts.sum(0).to(out.dtype)
    if statistics is None:
        launch(problem, like, out, upstream)
    else:
        partial = pred.new_empty((like.layout.programs, *statistics.shape), dtype=torch.float32)
        launch(problem, like, out, upstream, partial)
        statistics += partial.sum(0, dtype=torch.float64)
    return out


def forward(problem: Problem) -> Tensor:
    if not problem.reduces:
        return _stored(problem)
    return total([problem])


def total(problems: Sequence[Problem]) -> Tensor:
    """The sum of problems that reduce, over an avg_factor that they share: a launch each, and one that adds their parts."""
    pred, avg_factor, result = problems[0].pred, problems[0].avg_factor, problems[0].empty_sum()
    launched: list[tuple[Problem, Launch, int]] = []
    for problem in problems:
        if problem.pred.numel() > 0:
            problem, like = _summing(problem)
            launched.append((problem, like, like.layout.programs * like.layout.splits))
    if not launched:
        return result.zero_()
    partial, first = pred.new_empty(sum(parts for *_, parts in launched), dtype=torch.float32), 0
    for problem, like, parts in launched:
        launch(problem, like, partial=partial, first=first)
        first += parts
    sums.add(partial, avg_factor, result)
    return result


def _summing(problem: Problem) -> tuple[Problem, Launch]:
    """(the problem, with copies where its strides ask for them, the launch of its sum's parts)."""
    like = launches.like(problem, None, lambda: launch_of(problem))
    return _summing(contiguous(problem)) if like is None else (problem, like)


def forward_and_backward(problem: Problem, out: Tensor) -> Tensor:
    """The sum; into out the gradient under an upstream gradient of 1."""
    pred, result = problem.pred, problem.empty_sum()
    if pred.numel() == 0:
        return result.zero_()
    like = launches.like(problem, None, lambda: launch_of(problem, out), 'one pass')
    if like is None:
        grad = torch.empty_like(out, memory_format=torch.contiguous_format)
        result = forward_and_backward(contiguous(problem), grad)
        out.copy_(grad)
        return result
    partial = pred.new_empty(like.layout.programs * like.layout.splits, dtype=torch.float32)
    launch(problem, like, out, partial=partial)
    sums.add(partial, None, result)  # already over avg_factor
    return result


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    return _stored(problem, upstream, statistics)
