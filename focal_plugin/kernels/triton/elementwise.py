"""The Triton backend: one forward and one backward kernel for every variant.

A variant comes in as FN, its point function. Two ways to walk the logits:

- tiles of rows x classes, for any strides of up to three dimensions of rows: a row's label and weight are loaded once and
  there is no division per logit. Along whichever direction the logits lie closest together the tile is long.
- flat (FLAT), for contiguous logits whose number of classes no tile divides: the row comes from a division by C, which
  is a constant there.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from focal_plugin.kernels.eager import EPS
from focal_plugin.kernels.problem import Problem
from focal_plugin.kernels.triton import primitives as prim
from focal_plugin.kernels.triton.layout import Layout, layout_of
from focal_plugin.lazy import resolve
from focal_plugin.math import SPECS

_EPS = tl.constexpr(EPS)


@triton.jit
def row_offset(first_row, row, n1, n2, s0, s1, s2, DIMS: tl.constexpr):
    """Elements from an operand's start to a row, given by its index over DIMS dimensions of sizes (..., n1, n2).

    The index is first_row + row; first_row is 0 unless DIMS is 1.
    """
    if DIMS == 1:
        return first_row * s2 + row.to(tl.int64) * s2
    offset = (row % n2).to(tl.int64) * s2
    rest = row // n2
    if DIMS == 2:
        return offset + rest.to(tl.int64) * s1
    return offset + (rest % n1).to(tl.int64) * s1 + (rest // n1).to(tl.int64) * s0


@triton.jit
def flat_row(first, lane, C: tl.constexpr, SHIFT: tl.constexpr):
    """The row of each place of a flat tile that starts at class `first` of row 0.

    The division is a product of 32 bits and a shift, unless SHIFT is 0. A thread's four neighbours share the product.
    """
    if SHIFT == 0:
        return (first + lane) // C
    FACTOR: tl.constexpr = ((1 << SHIFT) + C - 1) // C
    of_four = (first + (lane & -4)).to(tl.uint32) * FACTOR
    return ((of_four + (lane & 3).to(tl.uint32) * FACTOR) >> SHIFT).to(tl.int32)


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


@triton.jit
def at_parameters(
    x, p, q, log_p, log_q, y, is_positive, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, HARD: tl.constexpr, TABLE: tl.constexpr,
):  # fmt: skip
    """(value, derivative) of the variant: its parameters are numbers, or a table of one a class."""
    if TABLE:
        p0 = tl.load(table_ptr + col, mask=mask, other=0.0)
        if PARAMETERS > 1:
            p1 = tl.load(table_ptr + C + col, mask=mask, other=0.0)
        if PARAMETERS > 2:
            p2 = tl.load(table_ptr + 2 * C + col, mask=mask, other=0.0)
        if PARAMETERS > 3:
            p3 = tl.load(table_ptr + 3 * C + col, mask=mask, other=0.0)
        if PARAMETERS > 4:
            p4 = tl.load(table_ptr + 4 * C + col, mask=mask, other=0.0)
        if PARAMETERS > 5:
            p5 = tl.load(table_ptr + 5 * C + col, mask=mask, other=0.0)
    if PARAMETERS == 1:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, EXPONENT, HARD)
    elif PARAMETERS == 2:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, EXPONENT, HARD)
    elif PARAMETERS == 3:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, p2, EXPONENT, HARD)
    elif PARAMETERS == 4:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, p2, p3, EXPONENT, HARD)
    elif PARAMETERS == 5:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, p2, p3, p4, EXPONENT, HARD)
    else:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, p2, p3, p4, p5, EXPONENT, HARD)


@triton.jit
def point(
    x, y, is_positive, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, HARD: tl.constexpr, TABLE: tl.constexpr,
    ACTIVATED: tl.constexpr, EPSILON: tl.constexpr, GRADIENT: tl.constexpr,
):  # fmt: skip
    """The variant's value, or its derivative by what the caller passed."""
    if ACTIVATED:
        x, p, q, log_p, log_q = prim.terms_of_probability(x, EPSILON)
    else:
        if GRADIENT:
            # Far beyond where every derivative is constant: an infinite logit would meet a 0.
            x = prim.clamp(x, 1e30)
        x, p, q, log_p, log_q = prim.terms_of_logit(x)
    value, derivative = at_parameters(
        x, p, q, log_p, log_q, y, is_positive, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
        FN, PARAMETERS, EXPONENT, HARD, TABLE,
    )  # fmt: skip
    if GRADIENT:
        if ACTIVATED:
            return derivative * prim.outer_derivative_of_probability(p, q, y, EPSILON)
        return derivative
    return value


@triton.jit
def negative_point(
    x, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, TABLE: tl.constexpr, ACTIVATED: tl.constexpr,
    EPSILON: tl.constexpr, PRECISE: tl.constexpr, GRADIENT: tl.constexpr, REDUCE: tl.constexpr,
):  # fmt: skip
    """The same where the target is 0, known at compile time."""
    y = tl.zeros(x.shape, tl.float32)
    is_positive = tl.zeros(x.shape, tl.int1)
    if ACTIVATED or EXPONENT < 0:
        return point(
            x, y, is_positive, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
            FN, PARAMETERS, EXPONENT, True, TABLE, ACTIVATED, EPSILON, GRADIENT,
        )  # fmt: skip
    if GRADIENT:
        x = prim.clamp(x, 1e30)
    x, p, q, log_p, log_q = prim.terms_of_negative(x, PRECISE, GRADIENT, REDUCE)
    value, derivative = at_parameters(
        x, p, q, log_p, log_q, y, is_positive, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
        FN, PARAMETERS, EXPONENT, True, TABLE,
    )  # fmt: skip
    return derivative if GRADIENT else value


@triton.jit
def elementwise_kernel(
    x_ptr, target_ptr, score_ptr, weight_ptr, upstream_ptr, avg_ptr, table_ptr, channel_ptr, statistics_ptr, out_ptr,
    rows, C, n1, n2, scale, ignore_index, p0, p1, p2, p3, p4, p5,
    x_s0, x_s1, x_s2, x_sc, t_s0, t_s1, t_s2, t_sc, s_s0, s_s1, s_s2,
    w_s0, w_s1, w_s2, w_sc, u_s0, u_s1, u_s2, u_sc, o_s0, o_s1, o_s2, o_sc, largest,
    channels, x_channel, o_channel, span, o_split,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, LABELS: tl.constexpr, HAS_SCORE: tl.constexpr,
    WEIGHT: tl.constexpr, HAS_AVG: tl.constexpr, TABLE: tl.constexpr, ACTIVATED: tl.constexpr, EPSILON: tl.constexpr,
    HAS_IGNORE: tl.constexpr, GRADIENT: tl.constexpr, OUTPUT: tl.constexpr, STATISTICS: tl.constexpr,
    DIMS: tl.constexpr, FLAT: tl.constexpr, FLAT_C: tl.constexpr, FLAT_SHIFT: tl.constexpr, FLAT_ROWS: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, MASK_C: tl.constexpr, HAS_CHANNEL: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Values of a block, or gradients of an OUTPUT: one value an 'element', the sum of each 'row', or the 'sum' of all,
    of which each program writes its part.

    WEIGHT is 'none', 'row' or 'element'. STATISTICS: sums of the absolute gradients of positives and of negatives before
    the upstream gradient, class by class: (2, C) a program. FLAT walks BLOCK_R * BLOCK_C elements of rows of FLAT_C
    classes, else the program's tile is BLOCK_R rows by all classes, BLOCK_C at a time; SPLIT: by `span` classes, and there
    is a second dimension of programs. HAS_CHANNEL: each row's logits and gradients begin at a channel of its own.
    """
    HARD: tl.constexpr = LABELS and not HAS_SCORE
    REDUCE: tl.constexpr = OUTPUT == 'sum'
    STORES: tl.constexpr = GRADIENT or OUTPUT == 'element'
    BY_ROW: tl.constexpr = LABELS and not FLAT
    FLAT_LABELS: tl.constexpr = LABELS and FLAT
    NARROW: tl.constexpr = FLAT_C > 0 and not FLAT
    PRECISE: tl.constexpr = x_ptr.dtype.element_ty == tl.float32
    pid = tl.program_id(0)

    # 1. the factor of every element: scale, and for gradients of a sum the upstream scalar over avg_factor
    factor = scale
    after = 1.0
    if GRADIENT and REDUCE:
        if HAS_AVG:
            factor = factor / (tl.load(avg_ptr).to(tl.float32) + _EPS)
        if STATISTICS:
            after = tl.load(upstream_ptr).to(tl.float32)
        else:
            factor = factor * tl.load(upstream_ptr).to(tl.float32)

    # 2. rows of this program
    if FLAT:
        BLOCK: tl.constexpr = BLOCK_R * BLOCK_C
        start = pid.to(tl.int64) * BLOCK
        lane = tl.arange(0, BLOCK)
        first_row = start // FLAT_C
        first_col = (start - first_row * FLAT_C).to(tl.int32)
        row = flat_row(first_col, lane, FLAT_C, FLAT_SHIFT)
        col = first_col + lane - row * FLAT_C
        left = tl.minimum(rows * FLAT_C - start, BLOCK).to(tl.int32)
        row_mask = lane < left
        is_full = left == BLOCK
    else:
        first_row = 0
        row = pid * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
        row_mask = row < rows

    # 3. what is the same along a row
    row_factor = factor
    if FLAT_LABELS:
        of_tile = tl.arange(0, FLAT_ROWS)
        offset = row_offset(first_row, of_tile, n1, n2, t_s0, t_s1, t_s2, DIMS)
        in_tile = of_tile < tl.minimum(rows - first_row, FLAT_ROWS).to(tl.int32)
        any_positive = tl.max((tl.load(target_ptr + offset, mask=in_tile, other=C) != C).to(tl.int32), 0) > 0
    elif LABELS:
        offset = row_offset(first_row, row, n1, n2, t_s0, t_s1, t_s2, DIMS)
        read = tl.load(target_ptr + offset, mask=row_mask, other=C)
        label = read.to(tl.int32)
        any_positive = tl.max(tl.max((read != C).to(tl.int32), 1), 0) > 0  # or a label that is wrong or ignored
        row_factor = tl.full([BLOCK_R, 1], 1.0, tl.float32) * factor
        if HAS_IGNORE:
            kept = read != ignore_index
        if HAS_SCORE:
            offset = row_offset(first_row, row, n1, n2, s_s0, s_s1, s_s2, DIMS)
            score = tl.load(score_ptr + offset, mask=row_mask, other=0.0).to(tl.float32)
    if WEIGHT == 'row' and not FLAT:
        offset = row_offset(first_row, row, n1, n2, w_s0, w_s1, w_s2, DIMS)
        row_factor = row_factor * tl.load(weight_ptr + offset, mask=row_mask, other=0.0).to(tl.float32)
    x_row = row_offset(first_row, row, n1, n2, x_s0, x_s1, x_s2, DIMS)
    if HAS_CHANNEL:
        channel = tl.load(channel_ptr + row, mask=row_mask, other=0)
        is_channel = channel.to(tl.uint64, bitcast=True) < channels
        row_factor = tl.where(is_channel, 1.0, float('nan')) * row_factor
        channel = tl.where(is_channel, channel, 0)
        x_row += channel * x_channel
    if not LABELS:
        t_row = row_offset(first_row, row, n1, n2, t_s0, t_s1, t_s2, DIMS)
    if WEIGHT == 'element':
        w_row = row_offset(first_row, row, n1, n2, w_s0, w_s1, w_s2, DIMS)
    if not REDUCE and GRADIENT:
        u_row = row_offset(first_row, row, n1, n2, u_s0, u_s1, u_s2, DIMS)
    if STORES or OUTPUT == 'row':
        o_row = row_offset(first_row, row, n1, n2, o_s0, o_s1, o_s2, DIMS)
        if HAS_CHANNEL and STORES:
            o_row += channel * o_channel
    total = tl.zeros([BLOCK_R * BLOCK_C] if FLAT else [BLOCK_R, BLOCK_C], tl.float32)
    if BY_ROW:
        # One positive a row at most: it is computed once a row, and all others as negatives.
        own = tl.zeros([BLOCK_R, 1], tl.float32)
        if any_positive:
            label, validity, _ = checked(read, C, ignore_index, HAS_IGNORE)
            row_factor *= validity
            has_positive = (label >= 0) & (label < C)
            own_x = tl.load(x_ptr + (x_row + label.to(tl.int64) * x_sc), mask=has_positive, other=0.0).to(tl.float32)
            own_y = score if HAS_SCORE else tl.full(own_x.shape, 1.0, tl.float32)
            own = point(
                own_x, own_y, tl.full(own_x.shape, 1, tl.int1), table_ptr, label, has_positive, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, HARD, TABLE, ACTIVATED, EPSILON, GRADIENT,
            )  # fmt: skip
            if not STORES:
                if WEIGHT == 'element':
                    own *= tl.load(weight_ptr + (w_row + label.to(tl.int64) * w_sc), mask=has_positive, other=0.0).to(
                        tl.float32
                    )
                is_first = tl.arange(0, BLOCK_C)[None, :] == 0
                if SPLIT:
                    is_first = is_first & (tl.program_id(1) == 0)
                total = tl.where(is_first & has_positive, own, 0.0)

    # 4. classes, BLOCK_C at a time (FLAT: all at once)
    if SPLIT:
        first_class = tl.program_id(1) * span
        last_class = tl.minimum(first_class + span, C)
    else:
        first_class = 0
        last_class = 1 if FLAT else FLAT_C if FLAT_C > 0 else C
    for c in tl.range(first_class, last_class, BLOCK_C, loop_unroll_factor=FLAT_C if NARROW else 1):
        if FLAT:
            mask = row_mask
        else:
            col = c + tl.arange(0, BLOCK_C)[None, :]
            mask = row_mask & (col < C) if MASK_C else row_mask
        if not FLAT:
            x = tl.load(x_ptr + (x_row + col.to(tl.int64) * x_sc), mask=mask, other=0.0)
        elif is_full:
            x = tl.load(x_ptr + start + lane)
        else:
            # The mask anew in each branch that needs one: kept, it would cost a full tile a predicate a logit.
            x = tl.load(x_ptr + start + lane, mask=lane < left, other=0.0)
        x = x.to(tl.float32) if NARROW else prim.widened(x)
        if BY_ROW and not STORES:
            if any_positive:
                x = tl.where(col == label, 0.0 if ACTIVATED else -float('inf'), x)
        if not LABELS:
            y = tl.load(target_ptr + (t_row + col.to(tl.int64) * t_sc), mask=mask, other=0.0).to(tl.float32)
            is_positive = y > 0
        if BY_ROW:
            result = negative_point(
                x, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, TABLE, ACTIVATED, EPSILON, PRECISE, GRADIENT, not STORES,
            )  # fmt: skip
            if STORES:
                if any_positive:
                    result = tl.where(col == label, own, result)
        elif FLAT_LABELS:
            if any_positive:
                t_row = row_offset(first_row, row, n1, n2, t_s0, t_s1, t_s2, DIMS)
                label, validity, kept = label_of(target_ptr, t_row, lane < left, C, ignore_index, HAS_IGNORE)
                is_positive = col == label
                y = is_positive.to(tl.float32)
                if HAS_SCORE:
                    s_row = row_offset(first_row, row, n1, n2, s_s0, s_s1, s_s2, DIMS)
                    y *= tl.load(score_ptr + s_row, mask=is_positive & (lane < left), other=0.0).to(tl.float32)
                result = validity * point(
                    x, y, is_positive, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
                    FN, PARAMETERS, EXPONENT, HARD, TABLE, ACTIVATED, EPSILON, GRADIENT,
                )  # fmt: skip
                if HAS_IGNORE:
                    result = tl.where(kept, result, 0.0)
            else:
                result = negative_point(
                    x, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
                    FN, PARAMETERS, EXPONENT, TABLE, ACTIVATED, EPSILON, PRECISE, GRADIENT, not STORES,
                )  # fmt: skip
        else:
            result = point(
                x, y, is_positive, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, HARD, TABLE, ACTIVATED, EPSILON, GRADIENT,
            )  # fmt: skip
        if WEIGHT == 'element':
            result *= tl.load(weight_ptr + (w_row + col.to(tl.int64) * w_sc), mask=mask, other=0.0).to(tl.float32)
        elif WEIGHT == 'row' and FLAT:
            if is_full:
                row_weight = tl.load(weight_ptr + first_row * w_s2 + row * w_s2)
            else:
                row_weight = tl.load(weight_ptr + first_row * w_s2 + row * w_s2, mask=lane < left, other=0.0)
            result *= row_weight.to(tl.float32)
        if FLAT and not STORES:
            total = result
        elif not STORES:
            total += tl.where(mask, result, 0.0) if MASK_C else result
        else:
            result *= row_factor
            if STATISTICS:
                size = tl.where(mask & kept, tl.abs(result), 0.0) if HAS_IGNORE else tl.where(mask, tl.abs(result), 0.0)
                at = statistics_ptr + pid.to(tl.int64) * 2 * C + c + tl.arange(0, BLOCK_C)
                in_classes = c + tl.arange(0, BLOCK_C) < C
                is_positive = col == label if LABELS else is_positive
                tl.store(at, tl.sum(tl.where(is_positive, size, 0.0), 0), mask=in_classes)
                tl.store(at + C, tl.sum(tl.where(is_positive, 0.0, size), 0), mask=in_classes)
                result *= after
            if not REDUCE and GRADIENT:
                result *= tl.load(upstream_ptr + (u_row + col.to(tl.int64) * u_sc), mask=mask, other=0.0).to(tl.float32)
            if HAS_IGNORE and not FLAT:
                result = tl.where(kept, result, 0.0)
            if ACTIVATED and GRADIENT:
                # The derivative by a probability reaches 1e12 at the ends.
                result = tl.where(result > largest, largest, tl.where(result < -largest, -largest, result))
            result = result.to(out_ptr.dtype.element_ty)
            if not FLAT:
                tl.store(out_ptr + (o_row + col.to(tl.int64) * o_sc), result, mask=mask)
            elif is_full:
                tl.store(out_ptr + start + lane, result)
            else:
                tl.store(out_ptr + start + lane, result, mask=lane < left)

    # 5. the sums of this program's rows, or their sum
    if FLAT and not STORES:
        if not is_full:
            total = tl.where(lane < left, total, 0.0)
        tl.store(out_ptr + pid, tl.sum(total, 0) * row_factor)
    elif not STORES:
        total = tl.sum(total, 1, keep_dims=True) * row_factor
        if HAS_IGNORE:
            total = tl.where(kept, total, 0.0)
        if OUTPUT == 'row':
            if SPLIT:
                o_row += tl.program_id(1) * o_split
            tl.store(out_ptr + o_row, total.to(out_ptr.dtype.element_ty), mask=row_mask)
        else:
            at = pid + tl.program_id(1) * tl.num_programs(0) if SPLIT else pid
            tl.store(out_ptr + at, tl.sum(tl.sum(tl.where(row_mask, total, 0.0), 1), 0))


@triton.jit
def sum_kernel(partial_ptr, avg_ptr, out_ptr, count, HAS_AVG: tl.constexpr, BLOCK: tl.constexpr):
    """Adds the partial sums in a fixed order and divides by avg_factor."""
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        total += tl.load(partial_ptr + start + lane, mask=start + lane < count, other=0.0)
    result = tl.sum(total)
    if HAS_AVG:
        result = result / (tl.load(avg_ptr).to(tl.float32) + _EPS)
    tl.store(out_ptr, result)


@functools.cache
def point_function(name: str):
    """The compiled point function of a variant."""
    function = SPECS[name].value_and_grad
    resolve(function.__globals__)
    return triton.jit(function)


def constants(problem: Problem, layout: Layout, gradient: bool, statistics: bool = False) -> dict:
    """The kernel's compile-time arguments."""
    table = problem.table
    return {
        'FN': point_function(problem.spec.name),
        'PARAMETERS': len(problem.parameters) if table is None else table.size(0),
        'EXPONENT': problem.exponent,
        'LABELS': problem.has_labels,
        'HAS_SCORE': problem.score is not None,
        'WEIGHT': layout.weight,
        'HAS_AVG': problem.avg_factor is not None,
        'TABLE': table is not None,
        'ACTIVATED': problem.activated,
        'EPSILON': problem.spec.probability_epsilon,
        'HAS_IGNORE': problem.ignore_index is not None,
        'GRADIENT': gradient,
        'OUTPUT': problem.output,
        'STATISTICS': statistics,
        'DIMS': layout.dims,
        'FLAT': layout.flat,
        'FLAT_C': layout.classes if layout.flat or layout.warps == 1 else 0,
        'FLAT_SHIFT': flat_shift(layout) if layout.flat else 0,
        'FLAT_ROWS': triton.next_power_of_2(-(-layout.block_rows // layout.classes) + 1) if layout.flat else 0,
        'BLOCK_R': layout.block_rows,
        'BLOCK_C': layout.block_classes,
        'MASK_C': layout.classes % layout.block_classes != 0,
        'HAS_CHANNEL': problem.channel is not None,
        'SPLIT': layout.splits > 1,
    }


def flat_shift(layout: Layout) -> int:
    """s so that n // C = n ceil(2 ** s / C) >> s in 32 bits for every n of a flat tile, counted from a row's start; or 0."""
    most = layout.classes + layout.block_rows
    shift = (most * layout.classes).bit_length()
    return shift if most * -(-(2**shift) // layout.classes) < 2**32 else 0


def contiguous(problem: Problem) -> Problem:
    """Copies, for the strides that layout_of refuses."""
    operands = {name: getattr(problem, name) for name in ('pred', 'target', 'score', 'weight')}
    return problem._replace(**{name: None if t is None else t.contiguous() for name, t in operands.items()})


def _launch(
    problem: Problem, layout: Layout, out: Tensor, upstream: Tensor | None, partial: Tensor | None = None
) -> None:
    parameters = [*problem.parameters, *[0.0] * 6][:6]
    channels, *channel_strides = (0, 0, 0)
    if problem.channel is not None:
        stores = upstream is not None
        channels, *channel_strides = problem.pred.size(1), problem.pred.stride(1), out.stride(1) if stores else 0
    elementwise_kernel[(layout.programs, layout.splits)](
        problem.pred, problem.target, problem.score, problem.weight, upstream, problem.avg_factor, problem.table,
        problem.channel, partial, out,
        layout.rows, layout.classes, *layout.sizes, problem.scale, problem.ignore_index or 0, *parameters,
        *layout.strides, torch.finfo(problem.pred.dtype).max, channels, *channel_strides, layout.span,
        out.stride(0) if layout.splits > 1 and out.dim() else 0,
        **constants(problem, layout, upstream is not None, partial is not None), num_warps=layout.warps,
        enable_fp_fusion=True,
    )  # fmt: skip


def _stored(problem: Problem, upstream: Tensor | None = None, statistics: Tensor | None = None) -> Tensor:
    """One value an element or a row, or one gradient an element."""
    pred = problem.own(problem.pred)
    by_row = upstream is None and problem.output == 'row'
    if by_row:
        out = pred.new_empty(pred.shape[:-1])
    elif problem.channel is None:
        out = torch.empty_like(pred)
    else:
        out = torch.zeros_like(problem.pred)
    if pred.numel() == 0:
        return out.zero_()
    layout = layout_of(
        problem, out if by_row else problem.own(out), None if problem.reduce else upstream, statistics is not None
    )
    if layout is None:
        return _stored(contiguous(problem), None if upstream is None else upstream.contiguous(), statistics)
    if by_row and layout.splits > 1:
        parts = pred.new_empty((layout.splits, *out.shape), dtype=torch.float32)
        _launch(problem, layout, parts, None)
        return parts.sum(0).to(out.dtype)
    if statistics is None:
        _launch(problem, layout, out, upstream)
    else:
        partial = pred.new_empty((layout.programs, *statistics.shape), dtype=torch.float32)
        _launch(problem, layout, out, upstream, partial)
        statistics += partial.sum(0, dtype=torch.float64)
    return out


def forward(problem: Problem) -> Tensor:
    if not problem.reduce:
        return _stored(problem)
    pred, avg_factor = problem.pred, problem.avg_factor
    result = pred.new_empty(() if avg_factor is None else avg_factor.shape, dtype=torch.float32)
    if pred.numel() == 0:
        return result.zero_()
    layout = layout_of(problem)
    if layout is None:
        return forward(contiguous(problem))
    programs = layout.programs * layout.splits
    partial = pred.new_empty(programs, dtype=torch.float32)
    _launch(problem, layout, partial, None)
    sum_kernel[(1,)](partial, avg_factor, result, programs, avg_factor is not None, 1024)
    return result


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    return _stored(problem, upstream, statistics)
