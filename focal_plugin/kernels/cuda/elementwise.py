"""The cuda backend's elementwise family."""

from __future__ import annotations
from collections.abc import Sequence

import torch
from torch import Tensor

from focal_plugin.kernels.cuda import launches
from focal_plugin.kernels.cuda.launches import PROGRAMS, THREADS, Launch, Walk
from focal_plugin.kernels.layout import layout_of
from focal_plugin.kernels.problem import Problem, contiguous

ROWS = 256  # of a block of statistics
LANES = 4  # threads that share the classes of the same rows
IN_PLACE = True  # see evaluate in elementwise.cu
GATHERS = False
NARROW = 6  # logits of a thread that goes through rows of few classes
LONG, FEW = 1024, 2**15  # a row of more logits, of fewer rows, is too much for a thread


def _launch_of(problem: Problem, out: Tensor | None, upstream: Tensor | None) -> Launch | None:
    """The launch that writes out; None for rows of too many dimensions.

    Of a sum without an upstream gradient it writes the parts, and beside them into out, if there is one, the gradient.
    """
    value = upstream is None
    gradient = not value or (problem.reduces and out is not None)
    by_element = upstream if gradient and not problem.reduces else None
    read = problem.selected(out) if out is not None and gradient else out
    layout = layout_of(problem, read, by_element)
    if layout is None:
        return None
    walk = Walk(problem, layout, read, by_element)
    macros = {**launches.of_variant(problem, out, upstream, gradient), 'VALUE': value, **walk.macros}
    lanes, span = 1, layout.classes
    if walk.along_rows:
        plane = layout.sizes[1]
        while lanes < LANES and 2 * lanes <= layout.classes and not walk.alone:
            lanes *= 2
        items = max(walk.neighbours, 2, (NARROW if layout.narrow else 16 * lanes) // layout.classes)
        items = items // walk.neighbours * walk.neighbours
        tiles = layout.rows // plane * -(-plane // (THREADS // lanes * items))
        splits = 1 if walk.alone else min(-(-layout.classes // lanes), -(-PROGRAMS // tiles))
        span = -(-layout.classes // splits)
        grid = tiles, -(-layout.classes // span)
    else:
        items = max(walk.neighbours, 16 if out is None else 8)
        grid = -(-layout.rows * layout.classes // (THREADS * items)), 1
    macros.update(ITEMS=items, LANES=lanes, BLOCKS=walk.blocks)
    return Launch('elementwise', grid, THREADS, macros, launches.numbers_of(problem, layout, out, span))


def forward(problem: Problem) -> Tensor:
    if problem.reduces:
        return total([problem])
    pred = problem.selected(problem.pred)
    if problem.output == 'element':
        return launches.stored(problem, torch.empty_like(pred), None, _launch_of)
    if problem.channel is None and not (pred.size(-1) > LONG and pred.numel() < FEW * pred.size(-1)):
        return launches.stored(problem, pred.new_empty(pred.shape[:-1]), None, _launch_of)
    # Of masks, as of all few and long rows, a thread would have too much to do that goes through one.
    out = torch.empty(pred.shape, dtype=torch.float32, device=pred.device)
    of_pixels = launches.stored(problem._replace(output='element'), out, None, _launch_of)
    return of_pixels.sum(-1).to(pred.dtype)


def total(problems: Sequence[Problem]) -> Tensor:
    """The sum of problems that reduce, over an avg_factor that they share."""
    return launches.total(problems, _launch_of)


def forward_and_backward(problem: Problem, out: Tensor) -> Tensor:
    """The sum; into out the gradient under an upstream gradient of 1."""
    return launches.both(problem, out, _launch_of)


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    pred = problem.pred
    out = torch.empty_like(pred) if problem.channel is None else torch.zeros_like(pred)
    if statistics is not None and pred.numel() > 0:
        _gather(problem, statistics)
    return launches.stored(problem, out, upstream, _launch_of)


def _gather(problem: Problem, statistics: Tensor) -> None:
    """Adds the sums of the absolute gradients by class, without the upstream gradient, to statistics."""
    launch = launches.like(problem, None, 'statistics', lambda: _gathering(problem))
    if launch is None:
        return _gather(contiguous(problem), statistics)
    partial = problem.pred.new_empty((launch.grid[0], *statistics.shape), dtype=torch.float32)
    launch(partial.device, launches.tensors_of(problem, None, None, partial), problem.scale)
    statistics += partial.sum(0, dtype=torch.float64)


def _gathering(problem: Problem) -> Launch | None:
    layout = layout_of(problem, statistics=True)
    if layout is None:
        return None
    walk = Walk(problem, layout, None, None)
    macros = {**launches.of_variant(problem, None, None, True), **walk.macros, 'ROWS': ROWS}
    of_block = THREADS // 32 if walk.along_rows else 32
    grid = -(-layout.rows // ROWS), -(-layout.classes // of_block)
    return Launch('statistics', grid, THREADS, macros, launches.numbers_of(problem, layout))
