"""Logits of any strides walked in tiles of rows x classes.

A row's label and weight are loaded once, and there is no division per logit. Along whichever direction the logits lie
closest together the tile is long. flat.py has the other way to walk.
"""

import triton
import triton.language as tl

from focal_plugin.kernels.triton import primitives as prim
from focal_plugin.kernels.triton.operands import OUTER_STRIDES, checked, divided, row_offset, rows_of, unscaled
from focal_plugin.kernels.triton.points import dense_point, negative_point, point


@triton.jit
def _loss_of_target(
    x_ptr, at, label, has_positive, score, per_class_ptr, C, p0, p1, p2, p3, p4, p5,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, HAS_SCORE: tl.constexpr,
    PER_CLASS: tl.constexpr, ACTIVATED: tl.constexpr, EPSILON: tl.constexpr, GRADIENT: tl.constexpr,
    VANISHES: tl.constexpr,
):  # fmt: skip
    """(value, derivative) of each row's positive: its logit lies at `at`, where the row has one."""
    target_logit = tl.load(x_ptr + at, mask=has_positive, other=0.0).to(tl.float32)
    y = score if HAS_SCORE else tl.full(target_logit.shape, 1.0, tl.float32)
    return point(
        target_logit, y, tl.full(target_logit.shape, 1, tl.int1), per_class_ptr, label, has_positive, C,
        p0, p1, p2, p3, p4, p5,
        FN, PARAMETERS, EXPONENT, not HAS_SCORE, PER_CLASS, ACTIVATED, EPSILON, GRADIENT, VANISHES,
    )  # fmt: skip


@triton.jit
def _store_statistics(partial_ptr, size, is_positive, col, C):
    """The sums of a block's absolute gradients by class, of positives and of negatives: rows of (2, C)."""
    is_class = col < C
    tl.store(partial_ptr + col, tl.sum(tl.where(is_positive, size, 0.0), 0), mask=is_class)
    tl.store(partial_ptr + C + col, tl.sum(tl.where(is_positive, 0.0, size), 0), mask=is_class)


@triton.jit(
    do_not_specialize=[
        'label_ptr', 'score_ptr', 'row_weight_ptr', 'avg_ptr', 'n1', 'n2', 'ignore_index', *OUTER_STRIDES, 'x_sc', 'o_sc',
        'channels', 'span', 'o_split', 'first',
    ]
)  # fmt: skip
def tiled_kernel(
    x_ptr, label_ptr, score_ptr, row_weight_ptr, target_ptr, weight_ptr, upstream_ptr, avg_ptr, per_class_ptr, channel_ptr,
    partial_ptr, out_ptr,
    scale, first, C, n1, n2, ignore_index, p0, p1, p2, p3, p4, p5,
    x_s0, x_s1, x_s2, x_sc, t_s0, t_s1, t_s2, t_sc, s_s0, s_s1, s_s2,
    w_s0, w_s1, w_s2, w_sc, u_s0, u_s1, u_s2, u_sc, o_s0, o_s1, o_s2, o_sc, largest,
    channels, x_channel, o_channel, span, o_split,
    FN: tl.constexpr,  # the variant's point function
    PARAMETERS: tl.constexpr,  # how many it takes
    EXPONENT: tl.constexpr,  # the first of them where it is 0, 1, 2 or 4; else -1
    LABELS: tl.constexpr,  # targets are labels, not dense values
    HAS_SCORE: tl.constexpr,  # the target of a positive is a score, not 1
    WEIGHT: tl.constexpr,  # 'none', 'row' or 'element'
    HAS_AVG: tl.constexpr,  # the sum is divided by avg_factor
    PER_CLASS: tl.constexpr,  # the parameters are vectors over the classes
    ACTIVATED: tl.constexpr,  # the input holds probabilities, not logits
    EPSILON: tl.constexpr,  # added to a probability inside logarithms
    HAS_IGNORE: tl.constexpr,  # rows of ignore_index are left out
    VANISHES: tl.constexpr,  # a factor of the loss may be 0
    MOSTLY_ZERO: tl.constexpr,  # nearly all dense targets are
    VALUE: tl.constexpr,  # losses are wanted
    GRADIENT: tl.constexpr,  # gradients are
    OUTPUT: tl.constexpr,  # 'element', 'row' or 'sum'
    STATISTICS: tl.constexpr,  # the sums of absolute gradients by class are stored too
    DIMS: tl.constexpr,  # of the rows
    INNER: tl.constexpr,  # where logits are neighbours: in a 'row', a 'plane' or nowhere ('')
    ALIGN: tl.constexpr,  # what the strides are counted in: see operands.unscaled
    BLOCK_R: tl.constexpr,  # rows of a program
    BLOCK_C: tl.constexpr,  # classes that it takes at a time
    MASK_C: tl.constexpr,  # a block may reach beyond the last class
    NARROW: tl.constexpr,  # a thread walks this many classes, which is C; 0: threads share rows
    HAS_CHANNEL: tl.constexpr,  # each row reads one channel of its own
    SPLIT: tl.constexpr,  # a second dimension of programs shares the classes, `span` blocks each
):  # fmt: skip
    """Losses, gradients, or the sum of the losses and its gradient, of BLOCK_R rows by all their classes.

    OUTPUT: 'element' stores per logit, 'row' per row, 'sum' one partial sum per program, from place `first` of partial
    on; of gradients it says what the loss was, and they are stored per logit. STATISTICS are the absolute gradients
    before the upstream gradient, which is 1 where the losses are wanted too.

    The gradients may not overwrite the logits: a row's positive is read by other threads than the one that stores its
    gradient, where SPLIT of other programs, and nothing makes that one wait for them.
    """
    REDUCE: tl.constexpr = OUTPUT == 'sum'
    STORES: tl.constexpr = GRADIENT or OUTPUT == 'element'
    ADDS: tl.constexpr = VALUE and OUTPUT != 'element'
    PLAIN_SUM: tl.constexpr = REDUCE and not (GRADIENT or HAS_IGNORE)  # one wrong logit may spoil its neighbour
    PRECISE: tl.constexpr = x_ptr.dtype.element_ty == tl.float32
    pid = tl.program_id(0)

    # 1. the factor of every element: scale, and for gradients of a sum the upstream scalar over avg_factor
    factor = scale
    after = 1.0
    if GRADIENT and REDUCE:
        factor = divided(factor, avg_ptr, HAS_AVG)
        if STATISTICS:
            after = tl.load(upstream_ptr).to(tl.float32)
        elif not VALUE:
            factor = factor * tl.load(upstream_ptr).to(tl.float32)

    # 2. rows of this program
    n2, x_s0, x_s1, x_sc, o_s0, o_s1, o_sc = unscaled(n2, x_s0, x_s1, x_sc, o_s0, o_s1, o_sc, INNER, ALIGN)
    plane, row = rows_of(pid, n2, BLOCK_R, DIMS)
    row_mask = row < n2
    readable = row_mask
    if NARROW > 0:
        # The last row stands in for those beyond it, so that loads need no mask: all True, in row_mask's shape.
        row = tl.minimum(row, n2 - 1)
        readable = row_mask | True

    # 3. what is the same along a row: its label, score and factors, and where it lies in each operand
    row_factor = factor
    if LABELS:
        offset = row_offset(plane, row, n1, t_s0, t_s1, t_s2, DIMS)
        read = tl.load(label_ptr + offset, mask=readable, other=C)
        label = read.to(tl.int32)
        # A tile of background rows needs none of what labels ask for. (A wrong label, or an ignored one, counts too.)
        any_positive = tl.max(tl.max((read != C).to(tl.int32), 1), 0) > 0
        row_factor = tl.full([BLOCK_R, 1], 1.0, tl.float32) * factor
        if HAS_IGNORE:
            kept = read != ignore_index
        if HAS_SCORE:
            offset = row_offset(plane, row, n1, s_s0, s_s1, s_s2, DIMS)
            score = tl.load(score_ptr + offset, mask=readable, other=0.0).to(tl.float32)
    if WEIGHT == 'row':
        offset = row_offset(plane, row, n1, w_s0, w_s1, w_s2, DIMS)
        read_weight = tl.load(row_weight_ptr + offset, mask=readable, other=0.0)
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

    # 4. the row's positive: there is one at most, computed once, so that the classes are all negatives
    if LABELS:
        positive = tl.zeros([BLOCK_R, 1], tl.float32)
        if any_positive:
            label, validity, _ = checked(read, C, ignore_index, HAS_IGNORE)
            row_factor *= validity
            has_positive = (label >= 0) & (label < C)
            value, derivative = _loss_of_target(
                x_ptr, x_row + label.to(tl.int64) * x_sc, label, has_positive, score if HAS_SCORE else 1.0,
                per_class_ptr, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, HAS_SCORE, PER_CLASS, ACTIVATED, EPSILON, GRADIENT, VANISHES,
            )  # fmt: skip
            positive = derivative if GRADIENT else value
            if ADDS:
                if WEIGHT == 'element':
                    at = w_row + label.to(tl.int64) * w_sc
                    target_weight = tl.load(weight_ptr + at, mask=has_positive, other=0.0)
                    value = prim.times(target_weight.to(tl.float32), value)
                is_first = tl.arange(0, BLOCK_C)[None, :] == 0
                if SPLIT:
                    is_first = is_first & (tl.program_id(1) == 0)
                total = tl.where(is_first & has_positive, value, 0.0)

    # 5. the classes, BLOCK_C at a time: added up, or stored
    first_class = tl.program_id(1) * span * BLOCK_C if SPLIT else 0
    if NARROW > 0:
        classes: tl.constexpr = NARROW
    else:
        classes = span * BLOCK_C if SPLIT else C
    for c in (tl.static_range if NARROW > 0 else tl.range)(0, classes, BLOCK_C):
        col = first_class + c + tl.arange(0, BLOCK_C)[None, :]
        mask = row_mask & (col < C) if MASK_C else row_mask
        read_mask = readable & (col < C) if MASK_C else readable
        x = tl.load(x_ptr + (x_row + col.to(tl.int64) * x_sc), mask=read_mask, other=0.0)
        x = x.to(tl.float32) if NARROW > 0 else prim.widened(x)
        if LABELS:
            if ADDS:
                if any_positive:
                    # In the place of the label a logit that adds 0.
                    x = tl.where(col == label, 0.0 if ACTIVATED else -float('inf'), x)
            value, derivative = negative_point(
                x, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, PER_CLASS, ACTIVATED, EPSILON, PRECISE, VALUE, GRADIENT, VANISHES, PLAIN_SUM,
            )  # fmt: skip
            result = derivative if GRADIENT else value
            if STORES:
                if any_positive:
                    result = tl.where(col == label, positive, result)
        else:
            target = tl.load(target_ptr + (t_row + col.to(tl.int64) * t_sc), mask=mask, other=0.0)
            value, derivative = dense_point(
                x, target, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
                FN, PARAMETERS, EXPONENT, PER_CLASS, ACTIVATED, EPSILON, PRECISE, VALUE, GRADIENT, VANISHES, MOSTLY_ZERO,
                PLAIN_SUM,
            )  # fmt: skip
            result = derivative if GRADIENT else value
        if WEIGHT == 'element':
            weight = tl.load(weight_ptr + (w_row + col.to(tl.int64) * w_sc), mask=mask, other=0.0).to(tl.float32)
            if ADDS:
                value = prim.times(weight, value)
            result = weight * result if GRADIENT else prim.times(weight, result)
        if ADDS:
            total += tl.where(mask, value, 0.0) if MASK_C else value
        if STORES:
            result = row_factor * result if GRADIENT else prim.times(row_factor, result)
            if STATISTICS:
                size = tl.where(mask & kept, tl.abs(result), 0.0) if HAS_IGNORE else tl.where(mask, tl.abs(result), 0.0)
                part = partial_ptr + pid.to(tl.int64) * 2 * C
                is_positive = col == label if LABELS else ~(target <= 0)  # NaN is no negative
                _store_statistics(part, size, is_positive, first_class + c + tl.arange(0, BLOCK_C), C)
                result *= after
            if not REDUCE and GRADIENT:
                result *= tl.load(upstream_ptr + (u_row + col.to(tl.int64) * u_sc), mask=mask, other=0.0).to(tl.float32)
            if HAS_IGNORE:
                result = tl.where(kept, result, 0.0)
            if ACTIVATED and GRADIENT:
                # The derivative by a probability reaches 1e12 at the ends.
                result = tl.clamp(result, -largest, largest, propagate_nan=tl.PropagateNan.ALL)
            tl.store(out_ptr + (o_row + col.to(tl.int64) * o_sc), result.to(out_ptr.dtype.element_ty), mask=mask)

    # 6. the sums of this program's rows, or their sum
    if ADDS:
        total = prim.times(row_factor, tl.sum(total, 1, keep_dims=True))
        if HAS_IGNORE:
            total = tl.where(kept, total, 0.0)
        if OUTPUT == 'row':
            if SPLIT:
                o_row += tl.program_id(1) * o_split
            tl.store(out_ptr + o_row, total.to(out_ptr.dtype.element_ty), mask=row_mask)
        else:
            at = pid + tl.program_id(1) * tl.num_programs(0) if SPLIT else pid
            tl.store(partial_ptr + first + at, tl.sum(tl.sum(tl.where(row_mask, total, 0.0), 1), 0))
