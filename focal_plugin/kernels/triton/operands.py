"""Where a row's operands lie, what its label says, and what a sum is divided by."""

from __future__ import annotations

import triton
import triton.language as tl

from focal_plugin.kernels.layout import Layout
from focal_plugin.kernels.problem import EPS

_EPS = tl.constexpr(EPS)

# Strides that change with the sizes of images. A kernel is compiled for what 16 divides: not for these, which would be
# hundreds, but for the ALIGN of the layout.
OUTER_STRIDES = tuple(f'{operand}_s{k}' for operand in 'xtswuo' for k in (0, 1))


def constants(layout: Layout) -> dict[str, int | str]:
    """The compile-time arguments of the kernels that walk tiles."""
    return {
        'DIMS': layout.dims,
        'INNER': layout.inner,
        'ALIGN': layout.align,
        'BLOCK_R': layout.block_rows,
        'BLOCK_C': layout.block_classes,
    }


@triton.jit
def divided(factor, avg_ptr, HAS_AVG: tl.constexpr):
    """Over avg_factor, if there is one."""
    return factor / (tl.load(avg_ptr).to(tl.float32) + _EPS) if HAS_AVG else factor


@triton.jit
def unscaled(n2, x_s0, x_s1, x_sc, o_s0, o_s1, o_sc, INNER: tl.constexpr, ALIGN: tl.constexpr):
    """A plane's size, and strides of logits and gradients, from what the host passes: how often ALIGN goes into them.

    Multiplied here, the compiler knows what divides them, and compiles no kernel more for the sizes that 16 divides.
    """
    if INNER == 'row':
        return n2, x_s0 * ALIGN, x_s1 * ALIGN, 1, o_s0 * ALIGN, o_s1 * ALIGN, 1
    elif INNER == 'plane':
        return n2 * ALIGN, x_s0 * ALIGN, x_s1 * ALIGN, x_sc * ALIGN, o_s0 * ALIGN, o_s1 * ALIGN, o_sc * ALIGN
    else:
        return n2, x_s0, x_s1, x_sc, o_s0, o_s1, o_sc


@triton.jit
def rows_of(pid, n2, BLOCK_R: tl.constexpr, DIMS: tl.constexpr):
    """(plane, rows within it) of a program: the n2 rows of a plane lie at even distances, and no program has two planes."""
    row = tl.arange(0, BLOCK_R)[:, None]
    if DIMS == 1:
        return 0, pid * BLOCK_R + row
    else:
        tiles = tl.cdiv(n2, BLOCK_R)
        return pid // tiles, (pid % tiles) * BLOCK_R + row


@triton.jit
def row_offset(plane, row, n1, s0, s1, s2, DIMS: tl.constexpr):
    """Elements from an operand's start to a row of a plane, which is one of (..., n1)."""
    offset = row.to(tl.int64) * s2
    if DIMS == 2:
        offset += plane.to(tl.int64) * s1
    if DIMS == 3:
        offset += (plane // n1).to(tl.int64) * s0 + (plane % n1).to(tl.int64) * s1
    return offset


@triton.jit
def checked(label, C, ignore_index, HAS_IGNORE: tl.constexpr):
    """(label, NaN where it is outside [0, C] and 1 elsewhere, whether the row is kept)."""
    valid = label.to(tl.uint64, bitcast=True) <= C
    kept = valid | True
    if HAS_IGNORE:
        kept = label != ignore_index
        valid = valid | (label == ignore_index)
    return tl.where(valid, label, -1).to(tl.int32), tl.where(valid, 1.0, float('nan')), kept


@triton.jit
def label_of(target_ptr, offset, mask, C, ignore_index, HAS_IGNORE: tl.constexpr):
    """The same of the labels at an offset."""
    return checked(tl.load(target_ptr + offset, mask=mask, other=0), C, ignore_index, HAS_IGNORE)
