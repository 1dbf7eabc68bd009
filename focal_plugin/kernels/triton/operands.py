"""Where a row's operands lie, what its label says, and what a sum is divided by."""

import triton
import triton.language as tl

from focal_plugin.kernels.eager import EPS

_EPS = tl.constexpr(EPS)


@triton.jit
def divided(factor, avg_ptr, HAS_AVG: tl.constexpr):
    """Over avg_factor, if there is one."""
    return factor / (tl.load(avg_ptr).to(tl.float32) + _EPS) if HAS_AVG else factor


@triton.jit
def row_offset(row, n1, n2, s0, s1, s2, DIMS: tl.constexpr):
    """Elements from an operand's start to a row, given by its index over DIMS dimensions of sizes (..., n1, n2)."""
    if DIMS == 1:
        return row.to(tl.int64) * s2
    offset = (row % n2).to(tl.int64) * s2
    rest = row // n2
    if DIMS == 2:
        return offset + rest.to(tl.int64) * s1
    return offset + (rest % n1).to(tl.int64) * s1 + (rest // n1).to(tl.int64) * s0


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
