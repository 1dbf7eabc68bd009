"""The Triton backend of the losses over a softmax.

A program takes a few whole rows. With l = log(sum of exp(x_j), j != y), p_y = sigmoid(d) at the margin d = x_y - l, so that
a variant's point function (FN) takes d as the logit of a positive; its derivative L'(d) is the gradient of x_y, and
-L'(d) exp(x_j - l) that of the others.

What is one number per row, all threads that share the row compute: a row is cut into blocks of few classes, so that few do.
The blocks stay in registers (HELD), and the logits are read once in either direction; of rows too long for that they are
read again for every use.
"""

from __future__ import annotations
import dataclasses
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from focal_plugin.kernels.layout import Layout, at_once, layout_of
from focal_plugin.kernels.problem import Problem, contiguous
from focal_plugin.kernels.triton import features, launches, operands, points, sums
from focal_plugin.kernels.triton import primitives as prim
from focal_plugin.kernels.triton.launches import Launch
from focal_plugin.kernels.triton.operands import OUTER_STRIDES, divided, label_of, row_offset, rows_of, unscaled
from focal_plugin.kernels.triton.points import point

LONGEST = 16384  # classes that registers hold
THREADS = 128

_INF = tl.constexpr(float('inf'))
_LARGEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def _others(x_ptr, row_at, stride, label, row_mask, col, C, MASK: tl.constexpr):
    """A block of logits, with -inf in the places of the labels' and beyond the last class."""
    mask = row_mask & (col < C) if MASK else row_mask
    x = tl.load(x_ptr + (row_at + col.to(tl.int64) * stride), mask=mask, other=-_INF).to(tl.float32)
    return tl.where(col == label, -_INF, x)


@triton.jit
def _exp(x, top):
    """exp(x - top) of logits that are at most top, whose infinities are taken from the largest number; NaN stays NaN."""
    below = prim.clamp(top, _LARGEST) - x
    return prim.exp_negative(tl.clamp(below, 0.0, 1e30, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def _sums(
    x_ptr, row_at, stride, label, row_mask, lane, C,
    BLOCKS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, MASK_C: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """(greatest other logit, sum of exp(others - greatest), the terms of that sum: a tuple of blocks where HELD)."""
    most = tl.full([BLOCK_R, BLOCK_C], -_INF, tl.float32)
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    if HELD:
        logits = ()
        exps = ()
        for i in tl.static_range(BLOCKS):
            logits += (  # type: ignore[assignment]  # longer by one
                _others(x_ptr, row_at, stride, label, row_mask, i * BLOCK_C + lane, C, MASK_C and i == BLOCKS - 1),
            )
            most = tl.maximum(most, logits[i])
        top = tl.max(most, 1, keep_dims=True)
        for i in tl.static_range(BLOCKS):
            exps += (_exp(logits[i], top),)  # type: ignore[assignment]
            total += exps[i]
    else:
        for c in range(0, C, BLOCK_C):
            most = tl.maximum(most, _others(x_ptr, row_at, stride, label, row_mask, c + lane, C, MASK_C))
        top = tl.max(most, 1, keep_dims=True)
        for c in range(0, C, BLOCK_C):
            total += _exp(_others(x_ptr, row_at, stride, label, row_mask, c + lane, C, MASK_C), top)
        exps = top  # none: they don't stay
    return top, tl.sum(total, 1, keep_dims=True), exps


@triton.jit
def _margin(target_logit, top, total):
    # What target_logit - top loses by rounding is put back: the error of a margin is multiplied by gamma + 1.
    near = target_logit - top
    back = near - target_logit
    lost = (target_logit - (near - back)) - (top + back)
    return near - (prim.log(total) - tl.where(tl.abs(near) <= _LARGEST, lost, 0.0))


@triton.jit
def _spread(
    out_ptr, row_at, stride, exps, by, slope, label, kept, row_mask, col, C,
    HAS_IGNORE: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Stores a block of the gradient: the slope to the labels' logits, by * exps to the others."""
    result = tl.where(col == label, slope, exps * by)
    if HAS_IGNORE:
        result = tl.where(kept, result, 0.0)
    mask = row_mask & (col < C) if MASK else row_mask
    tl.store(out_ptr + (row_at + col.to(tl.int64) * stride), result.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(
    do_not_specialize=[
        'label_ptr', 'row_weight_ptr', 'avg_ptr', 'n1', 'n2', 'ignore_index', *OUTER_STRIDES, 'x_sc', 'o_sc'
    ]
)  # fmt: skip
def rowwise_kernel(
    x_ptr, label_ptr, row_weight_ptr, upstream_ptr, avg_ptr, per_class_ptr, out_ptr,
    scale, C, n1, n2, ignore_index, p0, p1, p2, p3, p4, p5,
    x_s0, x_s1, x_s2, x_sc, t_s0, t_s1, t_s2, t_sc, s_s0, s_s1, s_s2,
    w_s0, w_s1, w_s2, w_sc, u_s0, u_s1, u_s2, u_sc, o_s0, o_s1, o_s2, o_sc,
    # as tiled_kernel's
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, HAS_AVG: tl.constexpr, PER_CLASS: tl.constexpr,
    HAS_IGNORE: tl.constexpr, VANISHES: tl.constexpr, GRADIENT: tl.constexpr, OUTPUT: tl.constexpr, DIMS: tl.constexpr,
    INNER: tl.constexpr, ALIGN: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, MASK_C: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,  # one per row
    HELD: tl.constexpr,  # the exponentials of a row stay in registers
    BLOCKS: tl.constexpr,  # of classes in a row, where HELD
):  # fmt: skip
    """Losses, or gradients if GRADIENT, of BLOCK_R rows. OUTPUT: 'row' stores per row, 'sum' one partial per program."""
    pid = tl.program_id(0)

    # 1. rows of this program, and the factor of each
    n2, x_s0, x_s1, x_sc, o_s0, o_s1, o_sc = unscaled(n2, x_s0, x_s1, x_sc, o_s0, o_s1, o_sc, INNER, ALIGN)
    plane, row = rows_of(pid, n2, BLOCK_R, DIMS)
    lane = tl.arange(0, BLOCK_C)[None, :]
    row_mask = row < n2
    t_row = row_offset(plane, row, n1, t_s0, t_s1, t_s2, DIMS)
    label, validity, kept = label_of(label_ptr, t_row, row_mask, C - 1, ignore_index, HAS_IGNORE)
    is_inside = row_mask & (label >= 0) & (label < C)
    factor = validity * scale
    if HAS_WEIGHT:
        w_row = row_offset(plane, row, n1, w_s0, w_s1, w_s2, DIMS)
        factor *= tl.load(row_weight_ptr + w_row, mask=row_mask, other=0.0).to(tl.float32)
    if GRADIENT:
        if OUTPUT == 'row':
            u_row = row_offset(plane, row, n1, u_s0, u_s1, u_s2, DIMS)
            factor *= tl.load(upstream_ptr + u_row, mask=row_mask, other=0.0).to(tl.float32)
        else:
            factor *= tl.load(upstream_ptr).to(tl.float32)
            factor = divided(factor, avg_ptr, HAS_AVG)

    # 2. their margins, and the variant there
    x_row = row_offset(plane, row, n1, x_s0, x_s1, x_s2, DIMS)
    top, total, exps = _sums(
        x_ptr, x_row, x_sc, label, row_mask, lane, C, BLOCKS, BLOCK_R, BLOCK_C, MASK_C, HELD
    )  # fmt: skip
    target_logit = tl.load(x_ptr + (x_row + label.to(tl.int64) * x_sc), mask=is_inside, other=0.0).to(tl.float32)
    value, derivative = point(
        _margin(target_logit, top, total), tl.full([BLOCK_R, 1], 1.0, tl.float32), row_mask | True, per_class_ptr,
        label, is_inside, C, p0, p1, p2, p3, p4, p5,
        FN, PARAMETERS, EXPONENT, True, PER_CLASS, False, 0.0, GRADIENT, VANISHES,
    )  # fmt: skip
    result = factor * derivative if GRADIENT else prim.times(factor, value)
    if HAS_IGNORE:
        result = tl.where(kept, result, 0.0)

    # 3. the gradient, spread over the classes; or the value of each row, or their sum
    if GRADIENT or OUTPUT == 'row':
        o_row = row_offset(plane, row, n1, o_s0, o_s1, o_s2, DIMS)
    if GRADIENT:
        # A total of 0: there are no others, or all are -inf.
        by = tl.where((total == 0) & (result == result), 0.0, -result * prim.reciprocal(total))
        if HELD:
            for i in tl.static_range(BLOCKS):
                _spread(
                    out_ptr, o_row, o_sc, exps[i], by, result, label, kept, row_mask, i * BLOCK_C + lane, C,
                    HAS_IGNORE, MASK_C and i == BLOCKS - 1,
                )  # fmt: skip
        else:
            for c in range(0, C, BLOCK_C):
                exp = _exp(_others(x_ptr, x_row, x_sc, label, row_mask, c + lane, C, MASK_C), top)
                _spread(out_ptr, o_row, o_sc, exp, by, result, label, kept, row_mask, c + lane, C, HAS_IGNORE, MASK_C)
    elif OUTPUT == 'row':
        tl.store(out_ptr + o_row, result.to(out_ptr.dtype.element_ty), mask=row_mask)
    else:
        tl.store(out_ptr + pid, tl.sum(tl.sum(tl.where(row_mask, result, 0.0), 1)))


def _tile(classes: int, classes_inner: bool, at_once: int) -> tuple[int, int]:
    """(rows, classes) of a block: as few threads to a row as memory accesses of a reasonable length allow.

    at_once: logits that a program reads in one access of each thread.
    """
    if not classes_inner:
        return THREADS, 1 if classes <= 8 else 8  # one by one, 80 classes take Triton a minute to compile
    if classes % 16 == 0:
        least, block = 16, at_once
    else:  # no neighbours are read together
        least, block = 1 if classes <= 4 else 4 if classes <= 40 else 8, 4 * THREADS
    width = max(least, triton.next_power_of_2(triton.cdiv(min(classes, LONGEST), 32)))
    held = width * triton.cdiv(classes, width)
    rows = 1 << max(0, (8 * block // held).bit_length() - 1)
    return max(1, THREADS // width, min(rows, block // min(width, 32))), width


def _layout(problem: Problem, out: Tensor | None = None, upstream: Tensor | None = None) -> Layout | None:
    """The elementwise losses' layout with tiles of whole rows, or of long pieces of them."""
    layout = layout_of(problem, out, upstream)
    if layout is None:
        return None
    *_, row_stride, class_stride = layout.strides['pred']
    rows, width = _tile(layout.classes, class_stride <= row_stride or layout.rows == 1, at_once(problem.pred))
    return dataclasses.replace(layout, flat=False, block_rows=rows, block_classes=width)


def constants(layout: Layout) -> dict[str, Any]:
    """The compile-time arguments that other kernels lack."""
    blocks = triton.cdiv(layout.classes, layout.block_classes)
    held = features.HAS_TUPLES and blocks * layout.block_classes * layout.block_rows <= 128 * THREADS
    return {
        **operands.constants(layout),
        'HAS_WEIGHT': layout.weight != 'none',
        'BLOCKS': blocks if held else 0,
        'MASK_C': layout.classes % layout.block_classes != 0,
        'HELD': held,
    }


def warps(layout: Layout) -> int:
    return 8 if layout.block_rows * layout.block_classes > 2 * THREADS and layout.block_rows == 1 else 4


def _launch_of(problem: Problem, out: Tensor | None, upstream: Tensor | None) -> Launch | None:
    layout = _layout(problem, out, None if problem.reduces else upstream)
    if layout is None:
        return None
    numbers = {**points.numbers(problem), **layout.numbers}
    common = {**points.constants(problem, upstream is not None), **constants(layout)}
    return Launch(rowwise_kernel, (layout.programs, 1, 1), warps(layout), numbers, common, layout)


def _launch(problem: Problem, like: Launch, out: Tensor, upstream: Tensor | None = None) -> None:
    tensors = {
        'x_ptr': problem.pred,
        'label_ptr': problem.target,
        'row_weight_ptr': problem.weight,
        'upstream_ptr': upstream,
        'avg_ptr': problem.avg_factor,
        'per_class_ptr': problem.per_class_parameters,
        'out_ptr': out,
    }
    like(tensors, scale=problem.scale)


def forward(problem: Problem) -> Tensor:
    pred = problem.pred
    result = problem.empty_sum() if problem.reduces else pred.new_empty(pred.shape[:-1])
    if pred.numel() == 0:
        return result.zero_()
    like = launches.like(problem, None, lambda: _launch_of(problem, None if problem.reduces else result, None))
    if like is None:
        return forward(contiguous(problem))
    if not problem.reduces:
        _launch(problem, like, result)
        return result
    partial = pred.new_empty(like.layout.programs, dtype=torch.float32)
    _launch(problem, like, partial)
    sums.add(partial, problem.avg_factor, result)
    return result


def backward(problem: Problem, upstream: Tensor, statistics: None = None) -> Tensor:
    out = torch.empty_like(problem.pred)
    if out.numel() == 0:
        return out
    like = launches.like(problem, upstream, lambda: _launch_of(problem, out, upstream))
    if like is None:
        return out.copy_(backward(contiguous(problem), upstream if problem.reduces else upstream.contiguous()))
    _launch(problem, like, out, upstream)
    return out
