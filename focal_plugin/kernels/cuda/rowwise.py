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
        **launches.of_rows(problem, layout),
        'ROW_WEIGHT': layout.weight != 'none',
        'ELEMENT_WEIGHT': False,
    }
    blocks = -(-layout.rows // (THREADS // lanes))
    return Launch('rowwise', (blocks, 1), THREADS, macros, launches.numbers_of(problem, layout))


def forward(problem: Problem) -> Tensor:
    if problem.reduces:
        return launches.total([problem], _launch_of)
    return launches.stored(problem, problem.pred.new_empty(problem.pred.shape[:-1]), None, _launch_of)


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    return launches.stored(problem, torch.empty_like(problem.pred), upstream, _launch_of)
