"""The cuda backend's row-wise family."""

from __future__ import annotations

import torch
from torch import Tensor

from focal_plugin.kernels.cuda import launches
from focal_plugin.kernels.cuda.launches import THREADS, Launch
from focal_plugin.kernels.layout import layout_of
from focal_plugin.kernels.problem import Problem

FEW = 8  # classes that a thread goes through by itself
MOST_HELD = 64  # logits that a thread holds


def _launch_of(problem: Problem, out: Tensor | None, upstream: Tensor | None) -> Launch | None:
    layout = layout_of(problem, out, None if problem.reduces else upstream)
    if layout is None:
        return None
    *_, row, step = layout.strides['pred']
    # As many threads to a row as memory accesses of a reasonable length allow.
    classes = layout.classes
    lanes = 1 if row < step or classes <= FEW else 8 if classes <= 128 else 16 if classes <= 512 else 32
    held = -(-classes // lanes)
    macros = {
        **launches.of_variant(problem, out, upstream, upstream is not None),
        'LANES': lanes,
        'HELD': held if held <= MOST_HELD else 0,
        'DIMS': layout.dims,
        'ROW_WEIGHT': layout.weight != 'none',
        'ELEMENT_WEIGHT': False,
    }
    blocks = -(-layout.rows // (THREADS // lanes))
    return Launch('rowwise', (blocks, 1), THREADS, macros, launches.numbers_of(problem, layout))


def forward(problem: Problem) -> Tensor:
    pred, avg_factor = problem.pred, problem.avg_factor
    if not problem.reduces:
        return launches.stored(problem, pred.new_empty(pred.shape[:-1]), None, _launch_of)
    result = pred.new_empty(() if avg_factor is None else avg_factor.shape, dtype=torch.float32)
    if pred.numel() == 0:
        return result.zero_()
    launch = launches.like(problem, None, 'sum', lambda: _launch_of(problem, None, None))
    if launch is None:
        return forward(launches.contiguous(problem))
    partial = pred.new_empty(launch.parts, dtype=torch.float32)
    launch(pred.device, launches.tensors_of(problem, partial, None, True), scale=problem.scale)
    launches.add(partial, avg_factor, result)
    return result


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    return launches.stored(problem, torch.empty_like(problem.pred), upstream, _launch_of)
