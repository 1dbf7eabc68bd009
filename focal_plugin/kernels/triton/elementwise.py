"""The Triton backend: one forward and one backward kernel for every variant.

A variant comes in as FN, its point function. Here the logits are walked in tiles of rows x classes, for any strides of up to
three dimensions of rows: a row's label and weight are loaded once and there is no division per logit. Along whichever
direction the logits lie closest together the tile is long. flat.py has the other way.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from focal_plugin.kernels.problem import Problem
from focal_plugin.kernels.triton import flat, launches, sums
from focal_plugin.kernels.triton import primitives as prim
from focal_plugin.kernels.triton.launches import Launch
from focal_plugin.kernels.triton.layout import Layout, layout_of
from focal_plugin.kernels.triton.operands import checked, divided, row_offset, rows_of
from focal_plugin.kernels.triton.points import negative_point, point, point_function


@triton.jit
def elementwise_kernel(
    x_ptr, target_ptr, score_ptr, weight_ptr, upstream_ptr, avg_ptr, table_ptr, channel_ptr, statistics_ptr, out_ptr,
    C, n1, n2, scale, ignore_index, p0, p1, p2, p3, p4, p5,
    x_s0, x_s1, x_s2, x_sc, t_s0, t_s1, t_s2, t_sc, s_s0, s_s1, s_s2,
    w_s0, w_s1, w_s2, w_sc, u_s0, u_s1, u_s2, u_sc, o_s0, o_s1, o_s2, o_sc, largest,
    channels, x_channel, o_channel, span, o_split,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, LABELS: tl.constexpr, HAS_SCORE: tl.constexpr,
    WEIGHT: tl.constexpr, HAS_AVG: tl.constexpr, TABLE: tl.constexpr, ACTIVATED: tl.constexpr, EPSILON: tl.constexpr,
    HAS_IGNORE: tl.constexpr, VANISHES: tl.constexpr, GRADIENT: tl.constexpr, OUTPUT: tl.constexpr,
    STATISTICS: tl.constexpr, DIMS: tl.constexpr, ALIGN: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    MASK_C: tl.constexpr, NARROW: tl.constexpr, HAS_CHANNEL: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Values of a block, or gradients of an OUTPUT: one value an 'element', the sum of each 'row', or the 'sum' of all,
    of which each program writes its part.

    WEIGHT is 'none', 'row' or 'element'. STATISTICS: sums of the absolute gradients of positives and of negatives before
    the upstream gradient, class by class: (2, C) a program. The program's tile is BLOCK_R rows by all classes, BLOCK_C at a
    time; NARROW, if not 0: by so many, which is C; SPLIT: by `span` classes, and there is a second dimension of programs.
    HAS_CHANNEL: each row's logits and gradients begin at a channel of its own.
    """
    HARD: tl.constexpr = LABELS and not HAS_SCORE
    REDUCE: tl.constexpr = OUTPUT == 'sum'
    STORES: tl.constexpr = GRADIENT or OUTPUT == 'element'
    PLAIN_SUM: tl.constexpr = REDUCE and not (GRADIENT or HAS_IGNORE)
    PRECISE: tl.constexpr = x_ptr.dtype.element_ty == tl.float32
    pid = tl.program_id(0)

    # 1. the factor of every element: scale, and for gradients of a sum the upstream scalar over avg_factor
    factor = scale
    after = 1.0
    if GRADIENT and REDUCE:
        factor = divided(factor, avg_ptr, HAS_AVG)
        if STATISTICS:
            after = tl.load(upstream_ptr).to(tl.float32)
        else:
            factor = factor * tl.load(upstream_ptr).to(tl.float32)

    # 2. rows of this program
    if ALIGN > 1:  # counted in what divides them all, so that the compiler knows it does
        n2, x_s0, x_s1, x_sc = n2 * ALIGN, x_s0 * ALIGN, x_s1 * ALIGN, x_sc * ALIGN
        o_s0, o_s1, o_sc = o_s0 * ALIGN, o_s1 * ALIGN, o_sc * ALIGN
    plane, row = rows_of(pid, n2, BLOCK_R, DIMS)
    row_mask = row < n2
    readable = row_mask
    if NARROW > 0:
        # The last row stands in for those beyond it: a load without a mask needs no other values, and a thread's rows are
        # no neighbours to vectorise, which their logits aren't either.
        row = tl.minimum(row, n2 - 1)
        readable = row_mask | True

    # 3. what is the same along a row
    row_factor = factor
    if LABELS:
        offset = row_offset(plane, row, n1, t_s0, t_s1, t_s2, DIMS)
        read = tl.load(target_ptr + offset, mask=readable, other=C)
        label = read.to(tl.int32)
        any_positive = tl.max(tl.max((read != C).to(tl.int32), 1), 0) > 0  # or a label that is wrong or ignored
        row_factor = tl.full([BLOCK_R, 1], 1.0, tl.float32) * factor
        if HAS_IGNORE:
            kept = read != ignore_index
        if HAS_SCORE:
            offset = row_offset(plane, row, n1, s_s0, s_s1, s_s2, DIMS)
            score = tl.load(score_ptr + offset, mask=readable, other=0.0).to(tl.float32)
    if WEIGHT == 'row':
        offset = row_offset(plane, row, n1, w_s0, w_s1, w_s2, DIMS)
        read_weight = tl.load(weight_ptr + offset, mask=readable, other=0.0)
        row_factor = row_factor * read_weight.to(tl.float32)
    x_row = row_offset(plane, row, n1, x_s0, x_s1, x_s2, DIMS)
    if HAS_CHANNEL:
        channel = tl.load(channel_ptr + row, mask=readable, other=0)
        is_channel = channel.to(tl.uint64, bitcast=True) < channels
        row_factor = tl.where(is_channel, 1.0, float('nan')) * row_factor
        channel = tl.where(is_channel, channel, 0)
        x_row += channel * x_channel
    if not LABELS:
        t_row = row_offset(plane, row, n1, t_s0, t_s1, t_s2, DIMS)
    if WEIGHT == 'element':
        w_row = row_offset(plane, row, n1, w_s0, w_s1, w_s2, DIMS)
    if not REDUCE and GRADIENT:
        u_row = row_offset(plane, row, n1, u_s0, u_s1, u_s2, DIMS)
    if STORES or OUTPUT == 'row':
        o_row = row_offset(plane, row, n1, o_s0, o_s1, o_s2, DIMS)
        if HAS_CHANNEL and STORES:
            o_row += channel * o_channel
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    if LABELS:
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
                FN, PARAMETERS, EXPONENT, HARD, TABLE, ACTIVATED, EPSILON, GRADIENT, VANISHES,
            )  # fmt: skip
            if not STORES:
                if WEIGHT == 'element':
                    own_weight = tl.load(weight_ptr + (w_row + label.to(tl.int64) * w_sc), mask=has_positive, other=0.0)
                    own = prim.times(own_weight.to(tl.float32), own)
                is_first = tl.arange(0, BLOCK_C)[None, :] == 0
                if SPLIT:
                    is_first = is_first & (tl.program_id(1) == 0)
                total = tl.where(is_first & has_positive, own, 0.0)

    # 4. classes, BLOCK_C at a time
    if NARROW > 0:
        first_class: tl.constexpr = 0
        last_class: tl.constexpr = NARROW
    elif SPLIT:
        first_class = tl.program_id(1) * span
        last_class = tl.minimum(first_class + span, C)
    else:
        first_class = 0
        last_class = C
    for c in (tl.static_range if NARROW > 0 else tl.range)(first_class, last_class, BLOCK_C):
        col = c + tl.arange(0, BLOCK_C)[None, :]
        mask = row_mask & (col < C) if MASK_C else row_mask
        read_mask = readable & (col < C) if MASK_C else readable
        x = tl.load(x_ptr + (x_row + col.to(tl.int64) * x_sc), mask=read_mask, other=0.0)
        x = x.to(tl.float32) if NARROW > 0 else prim.widened(x)
        if LABELS:
            if not STORES:
                if any_positive:
                    x = tl.where(col == label, 0.0 if ACTIVATED else -float('inf'), x)
            result = negative_point(
                x, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, TABLE, ACTIVATED, EPSILON, PRECISE, GRADIENT, VANISHES, PLAIN_SUM,
            )  # fmt: skip
            if STORES:
                if any_positive:
                    result = tl.where(col == label, own, result)
        else:
            y = tl.load(target_ptr + (t_row + col.to(tl.int64) * t_sc), mask=mask, other=0.0).to(tl.float32)
            is_positive = ~(y <= 0)  # NaN is no negative
            result = point(
                x, y, is_positive, table_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, HARD, TABLE, ACTIVATED, EPSILON, GRADIENT, VANISHES,
            )  # fmt: skip
        if WEIGHT == 'element':
            weight = tl.load(weight_ptr + (w_row + col.to(tl.int64) * w_sc), mask=mask, other=0.0).to(tl.float32)
            result = weight * result if GRADIENT else prim.times(weight, result)
        if not STORES:
            total += tl.where(mask, result, 0.0) if MASK_C else result
        else:
            result = row_factor * result if GRADIENT else prim.times(row_factor, result)
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
            if HAS_IGNORE:
                result = tl.where(kept, result, 0.0)
            if ACTIVATED and GRADIENT:
                # The derivative by a probability reaches 1e12 at the ends.
                result = tl.clamp(result, -largest, largest, propagate_nan=tl.PropagateNan.ALL)
            tl.store(out_ptr + (o_row + col.to(tl.int64) * o_sc), result.to(out_ptr.dtype.element_ty), mask=mask)

    # 5. the sums of this program's rows, or their sum
    if not STORES:
        total = prim.times(row_factor, tl.sum(total, 1, keep_dims=True))
        if HAS_IGNORE:
            total = tl.where(kept, total, 0.0)
        if OUTPUT == 'row':
            if SPLIT:
                o_row += tl.program_id(1) * o_split
            tl.store(out_ptr + o_row, total.to(out_ptr.dtype.element_ty), mask=row_mask)
        else:
            at = pid + tl.program_id(1) * tl.num_programs(0) if SPLIT else pid
            tl.store(out_ptr + at, tl.sum(tl.sum(tl.where(row_mask, total, 0.0), 1), 0))


def constants(problem: Problem, layout: Layout, gradient: bool) -> dict:
    """What both kernels are compiled for."""
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
        'VANISHES': problem.vanishes,
        'GRADIENT': gradient,
        'OUTPUT': problem.output,
    }


def contiguous(problem: Problem) -> Problem:
    """Copies, for the strides that layout_of refuses."""
    operands = {name: getattr(problem, name) for name in ('pred', 'target', 'score', 'weight')}
    return problem._replace(**{name: None if t is None else t.contiguous() for name, t in operands.items()})


def launch_of(
    problem: Problem, out: Tensor | None = None, upstream: Tensor | None = None, gathers: bool = False
) -> Launch | None:
    """The launch that writes out, or the parts of a sum where it is None; None for strides that layout_of refuses."""
    gradient = upstream is not None
    by_row = out is not None and problem.output == 'row' and not gradient
    own = out if out is None or by_row else problem.own(out)
    layout = layout_of(problem, own, None if problem.reduce else upstream, gathers)
    if layout is None:
        return None
    pred, largest = problem.pred, torch.finfo(problem.pred.dtype).max
    numbers = (problem.ignore_index or 0, *[*problem.parameters, *[0.0] * 6][:6])
    common = constants(problem, layout, gradient)
    grid = (layout.programs, layout.splits, 1)
    if layout.flat:
        numbers = (*numbers, *flat.strides(layout), largest)
        common |= flat.constants(layout)
        return Launch(lambda: flat.flat_kernel, grid, common, layout.warps, [layout.rows], numbers, layout)
    channels, *channel_strides = (0, 0, 0)
    if problem.channel is not None:
        channels, *channel_strides = pred.size(1), pred.stride(1), out.stride(1) if gradient else 0
    numbers = (
        *numbers, *layout.arguments, largest, channels, *channel_strides, layout.span, out.numel() if by_row else 0
    )  # fmt: skip
    common |= {
        'STATISTICS': gathers,
        'DIMS': layout.dims,
        'ALIGN': layout.align,
        'BLOCK_R': layout.block_rows,
        'BLOCK_C': layout.block_classes,
        'MASK_C': layout.classes % layout.block_classes != 0,
        'NARROW': layout.classes if layout.narrow else 0,
        'HAS_CHANNEL': problem.channel is not None,
        'SPLIT': layout.splits > 1,
    }
    return Launch(lambda: elementwise_kernel, grid, common, layout.warps, layout.counts, numbers, layout)


def launch(problem: Problem, like: Launch, out: Tensor, upstream: Tensor | None, partial: Tensor | None = None) -> None:
    pred, target, score, weight, table, avg_factor, channel, *_ = problem
    operands = (pred, target, score, weight, upstream, avg_factor, table)
    like((*operands, out) if like.layout.flat else (*operands, channel, partial, out), problem.scale)


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
    gathers = statistics is not None
    like = launches.like(problem, upstream, lambda: launch_of(problem, out, upstream, gathers), gathers)
    if like is None:
        # In pred's own strides, as the fake operators say.
        return out.copy_(_stored(contiguous(problem), None if upstream is None else upstream.contiguous(), statistics))
    if by_row and like.layout.splits > 1:
        parts = pred.new_empty((like.layout.splits, *out.shape), dtype=torch.float32)
        launch(problem, like, parts, None)
        return parts.sum(0).to(out.dtype)
    if statistics is None:
        launch(problem, like, out, upstream)
    else:
        partial = pred.new_empty((like.layout.programs, *statistics.shape), dtype=torch.float32)
        launch(problem, like, out, upstream, partial)
        statistics += partial.sum(0, dtype=torch.float64)
    return out


def forward(problem: Problem) -> Tensor:
    if not problem.reduce:
        return _stored(problem)
    pred, avg_factor = problem.pred, problem.avg_factor
    result = pred.new_empty(() if avg_factor is None else avg_factor.shape, dtype=torch.float32)
    if pred.numel() == 0:
        return result.zero_()
    like = launches.like(problem, None, lambda: launch_of(problem))
    if like is None:
        return forward(contiguous(problem))
    partial = pred.new_empty(like.layout.programs * like.layout.splits, dtype=torch.float32)
    launch(problem, like, partial, None)
    sums.add(partial, avg_factor, result)
    return result


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    return _stored(problem, upstream, statistics)
