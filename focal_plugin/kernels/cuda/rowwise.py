"""The cuda backend's row-wise family."""

from __future__ import annotations
from collections.abc import Mapping

import torch
from torch import Tensor

from focal_plugin.kernels.cuda import launches
from focal_plugin.kernels.cuda.launches import THREADS, Launch
from focal_plugin.kernels.layout import Layout, layout_of
from focal_plugin.kernels.problem import Problem

FEW = 8  # classes that a thread goes through by itself
MOST, MOST_HELD = 24, 64  # logits that a thread takes where more threads can share a row, and that it can hold
SECTOR = 32  # bytes that memory moves at least


def _launch_of(problem: Problem, out: Tensor | None, upstream: Tensor | None) -> Launch | None:
    layout = layout_of(problem, out, None if problem.reduces else upstream)
    if layout is None:
        return None
    *_, row, step = layout.strides['pred']
    gradient = upstream is not None
    both = (('pred', problem.pred), ('out', out if gradient else None))
    tensors = {name: tensor for name, tensor in both if tensor is not None}
    side_by_side = all(layout.strides[name][-1] == 1 for name in tensors)
    neighbours = _neighbours(layout, tensors) if side_by_side else 1
    # As many threads to a row as memory accesses of a reasonable length allow.
    classes, lanes = layout.classes, 1
    if neighbours > 1:
        while lanes < 32 and (lanes * neighbours * problem.pred.element_size() < SECTOR or lanes * MOST < classes):
            lanes *= 2
    elif row >= step and classes > FEW:
        lanes = 8 if classes <= 128 else 16 if classes <= 512 else 32
    held = -(-classes // (lanes * neighbours)) * neighbours
    macros = {
        **launches.of_variant(problem, out, upstream, gradient),
        'CLASSES': classes,
        'LAST_LABEL': classes - 1,
        'LANES': lanes,
        'NEIGHBOURS': neighbours,
        'SIDE_BY_SIDE': side_by_side,
        'HELD': held if held <= MOST_HELD else 0,
        **launches.of_rows(problem, layout),
        'ROW_WEIGHT': layout.weight != 'none',
        'ELEMENT_WEIGHT': False,
    }
    blocks = -(-layout.rows // (THREADS // lanes))
    return Launch('rowwise', (blocks, 1), THREADS, macros, launches.numbers_of(problem, layout))


def _neighbours(layout: Layout, tensors: Mapping[str, Tensor]) -> int:
    """Logits and gradients of a row that one access brings."""
    distances = [layout.classes, *(stride for name in tensors for stride in layout.strides[name][:-1])]
    for count in (4, 2):
        aligned = all(each.data_ptr() % (count * each.element_size()) == 0 for each in tensors.values())
        if aligned and not any(distance % count for distance in distances):
            return count
    return 1


def forward(problem: Problem) -> Tensor:
    if problem.reduces:
        return launches.total([problem], _launch_of)
    return launches.stored(problem, problem.pred.new_empty(problem.pred.shape[:-1]), None, _launch_of)


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    return launches.stored(problem, torch.empty_like(problem.pred), upstream, _launch_of)
