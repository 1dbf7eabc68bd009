"""Contiguous logits walked in their order, for numbers of classes that no tile divides.

A tile is made of groups of WIDTH neighbours, whatever rows they belong to. Where a row has WIDTH classes or more, a group
lies in the row of its first place and the next one: what is the same along a row is loaded for those two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from focal_plugin.kernels.layout import SHORT, Layout
from focal_plugin.kernels.triton import primitives as prim
from focal_plugin.kernels.triton.operands import checked, divided
from focal_plugin.kernels.triton.points import dense_point, negative_point, point


@triton.jit
def row_at(place, C: tl.constexpr, SHIFT: tl.constexpr):
    """The row of a place counted from the start of row 0: a product of 32 bits and a shift, unless SHIFT is 0."""
    if C == 1:
        return place
    if SHIFT == 0:
        return place // C
    FACTOR: tl.constexpr = ((1 << SHIFT) + C - 1) // C
    return ((place.to(tl.uint32) * FACTOR) >> SHIFT).to(tl.int32)


@triton.jit
def wraps(first_col, C: tl.constexpr, WIDTH: tl.constexpr):
    """Whether a place lies in the row after that of its group's first, which is of class first_col.

    Recomputed at each use: holding one predicate per lane across a branch costs more than the compare.
    """
    return tl.arange(0, WIDTH)[None, :] >= C - first_col


@triton.jit
def class_at(first_col, C: tl.constexpr, WIDTH: tl.constexpr):
    """The class of each place."""
    col = first_col + tl.arange(0, WIDTH)[None, :]
    return tl.where(wraps(first_col, C, WIDTH), col - C, col) if C % WIDTH != 0 else col


@triton.jit
def of_row(ptr, stride, row, last, other, first_col, C: tl.constexpr, WIDTH: tl.constexpr):
    """One value per row, for each place, or for each group where none lies in two rows; `other` beyond the last row."""
    value = tl.load(ptr + row.to(tl.int64) * stride, mask=row <= last, other=other)
    if C % WIDTH != 0:
        following = tl.load(ptr + (row + 1).to(tl.int64) * stride, mask=row < last, other=other)
        value = tl.where(wraps(first_col, C, WIDTH), following, value)
    return value


@triton.jit
def in_order(ptr, lane, left, BLOCK: tl.constexpr):
    """One value per place, contiguous as the logits are, 0 beyond the last."""
    if left == BLOCK:
        value = tl.load(ptr + lane)
    else:
        value = tl.load(ptr + lane, mask=lane < left, other=0.0)
    return value


@triton.jit
def of_place(ptr, row, stride, class_stride, lane, left, first_col, C: tl.constexpr, WIDTH: tl.constexpr):
    """The same of any strides; row counts from the pointer's."""
    following = wraps(first_col, C, WIDTH).to(tl.int64) if C % WIDTH != 0 else 0
    at = (row + following) * stride + class_at(first_col, C, WIDTH).to(tl.int64) * class_stride
    return tl.load(ptr + at, mask=lane < left, other=0.0)


@triton.jit(do_not_specialize=['label_ptr', 'score_ptr', 'row_weight_ptr', 'avg_ptr', 'rows', 'ignore_index', 'first'])
def flat_kernel(
    x_ptr, label_ptr, score_ptr, row_weight_ptr, target_ptr, weight_ptr, upstream_ptr, avg_ptr, per_class_ptr,
    partial_ptr, out_ptr,
    # Three numbers before p0: after four, a GPU loads the parameters in pairs, and needs 40 registers instead of 32.
    scale, first, ignore_index, p0, p1, p2, p3, p4, p5,
    t_s, t_sc, s_s, w_s, w_sc, u_s, u_sc, largest, rows,
    # as tiled_kernel's
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, LABELS: tl.constexpr, HAS_SCORE: tl.constexpr,
    WEIGHT: tl.constexpr, HAS_AVG: tl.constexpr, PER_CLASS: tl.constexpr, ACTIVATED: tl.constexpr, EPSILON: tl.constexpr,
    HAS_IGNORE: tl.constexpr, VANISHES: tl.constexpr, MOSTLY_ZERO: tl.constexpr, VALUE: tl.constexpr,
    GRADIENT: tl.constexpr, OUTPUT: tl.constexpr,
    T_IN_ORDER: tl.constexpr,  # dense targets are contiguous as the logits are
    W_IN_ORDER: tl.constexpr,  # weights per element are
    U_IN_ORDER: tl.constexpr,  # upstream gradients are
    C: tl.constexpr,  # classes
    SHIFT: tl.constexpr,  # of row_at
    LABEL_ROWS: tl.constexpr,  # at least the rows that a tile touches
    GROUPS: tl.constexpr,  # of neighbours, in a program
    WIDTH: tl.constexpr,  # of a group: logits that a thread reads at a time
):  # fmt: skip
    """tiled_kernel's work for BLOCK = GROUPS * WIDTH logits; OUTPUT is 'element' or 'sum'."""
    HARD: tl.constexpr = LABELS and not HAS_SCORE
    REDUCE: tl.constexpr = OUTPUT == 'sum'
    STORES: tl.constexpr = GRADIENT or OUTPUT == 'element'
    ADDS: tl.constexpr = VALUE and REDUCE
    PLAIN_SUM: tl.constexpr = REDUCE and not (GRADIENT or HAS_IGNORE)
    PRECISE: tl.constexpr = x_ptr.dtype.element_ty == tl.float32
    BLOCK: tl.constexpr = GROUPS * WIDTH

    # 1. the factor of every element: scale, and for gradients of a sum the upstream scalar over avg_factor
    factor = scale
    if GRADIENT and REDUCE:
        factor = divided(factor, avg_ptr, HAS_AVG)
        if not VALUE:
            factor *= tl.load(upstream_ptr).to(tl.float32)

    # 2. places of this program; the row and class of each group's first
    pid = tl.program_id(0)
    start = pid.to(tl.int64) * BLOCK
    first_row = start // C
    before = (start - first_row * C).to(tl.int32)
    left = tl.minimum((rows - first_row) * C - before, BLOCK).to(tl.int32)
    last = tl.minimum(rows - 1 - first_row, BLOCK).to(tl.int32)
    group = tl.arange(0, GROUPS)[:, None] * WIDTH
    lane = group + tl.arange(0, WIDTH)[None, :]
    row = row_at(before + group, C, SHIFT)
    first_col = before + group - row * C

    # 3. logits and targets; a tile without a label of a class is all negatives
    if left == BLOCK:
        x = tl.load(x_ptr + start + lane)
    else:
        # A negative, whose value is 0.
        x = tl.load(x_ptr + start + lane, mask=lane < left, other=0.0 if ACTIVATED else -float('inf'))
    x = prim.widened(x)
    if LABELS:
        of_tile = tl.arange(0, LABEL_ROWS)
        labels = tl.load(label_ptr + (first_row + of_tile) * t_s, mask=of_tile <= last, other=C)
        is_other = labels != C  # a class, wrong or ignored
        if HAS_IGNORE:
            is_other = is_other | (labels == ignore_index)
        any_positive = tl.max(is_other.to(tl.int32), 0) > 0
        if HAS_IGNORE:
            kept = tl.full([GROUPS, WIDTH], 1, tl.int1)
        if any_positive:
            read = of_row(label_ptr + first_row * t_s, t_s, row, last, C, first_col, C, WIDTH)
            label, validity, is_kept = checked(read, C, ignore_index, HAS_IGNORE)
            if HAS_IGNORE:
                kept = kept & is_kept
            col = class_at(first_col, C, WIDTH)
            is_positive = col == label
            y = is_positive.to(tl.float32)
            if HAS_SCORE:
                score = of_row(score_ptr + first_row * s_s, s_s, row, last, 0.0, first_col, C, WIDTH)
                y = tl.where(is_positive, score.to(tl.float32), 0.0)  # a product would spread a NaN over the row
            value, derivative = point(
                x, y, is_positive, per_class_ptr, col, col < C, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, HARD, PER_CLASS, ACTIVATED, EPSILON, GRADIENT, VANISHES,
            )  # fmt: skip
            value *= validity
            derivative *= validity
        else:
            col = class_at(first_col, C, WIDTH)
            value, derivative = negative_point(
                x, per_class_ptr, col, col < C, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, PER_CLASS, ACTIVATED, EPSILON, PRECISE, VALUE, GRADIENT, VANISHES, PLAIN_SUM,
            )  # fmt: skip
    else:
        col = class_at(first_col, C, WIDTH)
        if T_IN_ORDER:
            target = in_order(target_ptr + start, lane, left, BLOCK)
        else:
            target = of_place(target_ptr + first_row * t_s, row, t_s, t_sc, lane, left, first_col, C, WIDTH)
        value, derivative = dense_point(
            x, target, per_class_ptr, col, col < C, C, p0, p1, p2, p3, p4, p5,
            FN, PARAMETERS, EXPONENT, PER_CLASS, ACTIVATED, EPSILON, PRECISE, VALUE, GRADIENT, VANISHES, MOSTLY_ZERO,
            PLAIN_SUM,
        )  # fmt: skip

    # 4. weights and upstream gradients; the sum, one result per place, or both
    weight = 1.0
    if WEIGHT == 'row':
        weight = of_row(row_weight_ptr + first_row * w_s, w_s, row, last, 0.0, first_col, C, WIDTH).to(tl.float32)
    elif WEIGHT == 'element':
        if W_IN_ORDER:
            weight = in_order(weight_ptr + start, lane, left, BLOCK).to(tl.float32)
        else:
            at = weight_ptr + first_row * w_s
            weight = of_place(at, row, w_s, w_sc, lane, left, first_col, C, WIDTH).to(tl.float32)
    if ADDS:
        weighted = value if WEIGHT == 'none' else weight * value
        if HAS_IGNORE:
            weighted = tl.where(kept, weighted, 0.0)
        total = tl.sum(tl.sum(weighted, 1), 0)
        if total != total:  # perhaps a weight of 0 has met an infinite loss; seldom, and then all is done again
            weighted = prim.times(weight, value)
            if HAS_IGNORE:
                weighted = tl.where(kept, weighted, 0.0)
            total = tl.sum(tl.sum(weighted, 1), 0)
        tl.store(partial_ptr + first + pid, prim.times(factor, total))
    if STORES:
        result = derivative if GRADIENT else value
        if WEIGHT != 'none':
            result = weight * result if GRADIENT else prim.times(weight, result)
        result = factor * result if GRADIENT else prim.times(factor, result)
        if not REDUCE and GRADIENT:
            if U_IN_ORDER:
                result *= in_order(upstream_ptr + start, lane, left, BLOCK).to(tl.float32)
            else:
                at = upstream_ptr + first_row * u_s
                result *= of_place(at, row, u_s, u_sc, lane, left, first_col, C, WIDTH).to(tl.float32)
        if HAS_IGNORE:
            result = tl.where(kept, result, 0.0)
        if ACTIVATED and GRADIENT:
            # The derivative by a probability reaches 1e12 at the ends.
            result = tl.clamp(result, -largest, largest, propagate_nan=tl.PropagateNan.ALL)
        result = result.to(out_ptr.dtype.element_ty)
        if left == BLOCK:
            tl.store(out_ptr + start + lane, result)
        else:
            # Spelled differently from the load mask so that CSE does not keep it live.
            tl.store(out_ptr + start + lane, result, mask=tl.arange(0, WIDTH)[None, :] < left - group)


def numbers(layout: Layout) -> dict[str, int]:
    """The rows, and strides of target, score, weight and upstream."""
    found = {'rows': layout.rows}
    for name in ('target', 'score', 'weight', 'upstream'):
        row, step = layout.strides[name][-2:]
        found.update({f'{SHORT[name]}_s': row, f'{SHORT[name]}_sc': step})
    del found['s_sc']  # a score has no classes
    return found


def constants(layout: Layout) -> dict:
    """The kernel's compile-time arguments that tiled_kernel lacks."""
    C, block = layout.classes, layout.block_rows * layout.block_classes
    most = C + block
    # n // C = n ceil(2 ** shift / C) >> shift, exact for n up to most; 0 where that takes more than 32 bits.
    shift = (most * C).bit_length()
    fits = most * -(-(2**shift) // C) < 2**32
    return {
        'T_IN_ORDER': layout.in_order('target'),
        'W_IN_ORDER': layout.in_order('weight'),
        'U_IN_ORDER': layout.in_order('upstream'),
        'C': C,
        'SHIFT': shift if fits else 0,
        'LABEL_ROWS': triton.next_power_of_2(block // C + 2 * (C > 1)),
        'GROUPS': layout.block_rows,
        'WIDTH': layout.block_classes,
    }
