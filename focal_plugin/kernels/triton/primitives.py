"""Device functions that the point functions and kernels share. Coefficients: tools/maintain/fit.py."""

import triton
import triton.language as tl

from focal_plugin.kernels.triton.features import INTERPRETED, is_cuda


@triton.jit
def widened(x):
    """x in float32; two bfloat16 in one instruction each, where the conversion takes three."""
    if (INTERPRETED or not is_cuda()) or x.dtype != tl.bfloat16:
        return x.to(tl.float32)
    return tl.inline_asm_elementwise(
        '{ shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000; }', '=&r,=r,r', [x], tl.float32, is_pure=True, pack=2
    )


@triton.jit
def any_not_zero(y):
    """Whether a tile of targets has one that isn't 0."""
    if y.dtype == tl.float32:
        bits = y.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    elif (INTERPRETED or not is_cuda()) or 16 != y.dtype.primitive_bitwidth:  # 3.3 compares no int with a literal
        bits = (y != 0).to(tl.int32)
    else:
        # Those of two targets at once, as they lie in a register.
        bits = tl.inline_asm_elementwise(
            '{ and.b32 $0, $2, 0x7fff7fff; mov.b32 $1, $0; }', '=&r,=r,r', [y], tl.int32, is_pure=True, pack=2
        )
    return tl.max(tl.max(bits, 1), 0) > 0


@triton.jit
def exp2(x):
    """2 ** x in one instruction: NVIDIA's gives 0 for what is below the smallest normal number."""
    if INTERPRETED or not is_cuda():
        return tl.exp2(x)
    return tl.inline_asm_elementwise('ex2.approx.ftz.f32 $0, $1;', '=f,f', [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def exp_negative(x):
    """exp(-x) for x in [0, 1e30], to the error of exp2: what rounding x * log2(e) loses is put back."""
    power_of_two = x * -1.4426950408889634
    e = exp2(power_of_two)
    return tl.fma(e, tl.fma(power_of_two, -0.6931471805599453, -x), e)


@triton.jit
def reciprocal(x):
    """1 / x of neither a tiny nor a huge x: one instruction on NVIDIA, to one unit in the last place."""
    if INTERPRETED or not is_cuda():
        return 1.0 / x
    return tl.inline_asm_elementwise('rcp.approx.ftz.f32 $0, $1;', '=f,f', [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def reciprocal_by_two(x):
    """reciprocal for x up to 2 ** 62: two logits of a thread share one instruction; a NaN in one poisons the other."""
    if INTERPRETED or not is_cuda():
        return 1.0 / x
    return tl.inline_asm_elementwise(
        '{ .reg .f32 r; mul.f32 r, $2, $3; rcp.approx.ftz.f32 r, r; mul.f32 $0, r, $3; mul.f32 $1, r, $2; }',
        '=&f,=f,f,f', [x], tl.float32, is_pure=True, pack=2,
    )  # fmt: skip


@triton.jit
def log2(x):
    """log2(x) of a normal x in one instruction, off by 2 ** -22 at most near 1, where it is no use of itself."""
    if INTERPRETED or not is_cuda():
        return tl.log2(x)
    return tl.inline_asm_elementwise('lg2.approx.ftz.f32 $0, $1;', '=f,f', [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def choose(y, is_positive, one, zero, HARD: tl.constexpr):
    """The mean of two terms weighted by y, exact at y = 1 and y = 0 whatever the other term is."""
    if HARD:
        return tl.where(is_positive, one, zero)
    mixed = y * one + (1 - y) * zero
    return tl.where(y == 1, one, tl.where(y == 0, zero, mixed))


@triton.jit
def times(factor, value):
    """A product in which a factor of 0 wins over an infinite loss."""
    product = factor * value
    return tl.where(factor == 0, tl.where(tl.abs(value) == float('inf'), 0.0, product), product)


@triton.jit
def limit(value, x):
    """The loss of logits, given that of logits clamped to 1e30, which is near a finite limit or has grown with them."""
    return tl.where(tl.abs(x) == float('inf'), tl.where(value > 1e8, float('inf'), value), value)


@triton.jit
def mix(y, is_positive, one, zero, HARD: tl.constexpr):
    """The same of terms that are finite: a product with 0 is then exact."""
    if HARD:
        return tl.where(is_positive, one, zero)
    return y * one + (1 - y) * zero


@triton.jit
def log1p_unit(e):
    """log(1 + e) for e in [0, 1]: a fit of log1p(e) / e, relative error 5.4e-9, so that a small e keeps its digits."""
    p = -0.00317605701843 * e + 0.019542527261
    p = p * e - 0.0563736128301
    p = p * e + 0.105436237954
    p = p * e - 0.152696670744
    p = p * e + 0.196632742572
    p = p * e - 0.249516162629
    p = p * e + 0.333297104989
    p = p * e - 0.499998926481
    p = p * e + 0.999999994656
    return p * e


@triton.jit
def log(x):
    return tl.log(x)


@triton.jit
def power(base, log_base, exponent, EXPONENT: tl.constexpr):
    """base ** exponent; EXPONENT is the exponent where that is 0, 1, 2 or 4, else -1."""
    if EXPONENT == 0:
        return tl.full(base.shape, 1.0, tl.float32)
    if EXPONENT == 1:
        return base
    if EXPONENT == 2:
        return base * base
    if EXPONENT == 4:
        return (base * base) * (base * base)
    # In base 2, as the hardware has it. exponent may be a vector over the classes with a 0 in it.
    return tl.where(exponent == 0, 1.0, exp2(exponent * 1.4426950408889634 * log_base))


@triton.jit
def terms_of_logit(x):
    """(x, p, 1 - p, log p, log(1 - p)) of a logit, each to a relative error of a few float32 units."""
    # Without the bound an infinite logit would meet a 0.
    e = exp_negative(tl.minimum(tl.abs(x), 1e30, propagate_nan=tl.PropagateNan.ALL))
    r = reciprocal(1.0 + e)
    er = e * r
    log1p = log1p_unit(e)
    negative = x < 0
    p = tl.where(negative, er, r)
    q = tl.where(negative, r, er)
    return x, p, q, tl.minimum(x, 0.0) - log1p, tl.minimum(-x, 0.0) - log1p


@triton.jit
def minus_log_of_complement(s, complement):
    """-log(1 - s), given 1 - s as well: near 0 from s, which 1 - s has rounded away, where log2 is no use either."""
    series = 0.262869239 * s + 0.242701784
    series = series * s + 0.333668858
    series = series * s + 0.499994665
    series = series * s + 1.0
    return tl.where(s < 0.125, series * s, log2(complement) * -0.6931471805599453)


@triton.jit
def clamp(x, LIMIT: tl.constexpr):
    """To [-LIMIT, LIMIT]; NaN stays NaN."""
    return tl.clamp(x, -LIMIT, LIMIT, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def power_by_log(log_base, exponent):
    """base ** exponent where only the base's logarithm is at hand, which may be infinite."""
    return power(log_base, log_base, exponent, -1)


@triton.jit
def power_by_log_near_one(log_base, exponent):
    """power_by_log where what is left to 1 matters: near it the series of exp, which is off by a rounding."""
    z = tl.where(exponent == 0, 0.0, exponent * log_base)
    series = 0.001388888889 * z + 0.008333333333
    series = series * z + 0.041666666667
    series = series * z + 0.166666666667
    series = series * z + 0.5
    series = series * z + 1.0
    return tl.where(z > -0.25, series * z + 1.0, exp2(z * 1.4426950408889634))


@triton.jit
def power_by_base(base, exponent, EXPONENT: tl.constexpr):
    """base ** exponent where only the base is at hand, in [0, 1]; EXPONENT as for power."""
    return power(base, tl.log(base) if EXPONENT < 0 else base, exponent, EXPONENT)


@triton.jit
def power_less_one(base, powered, EXPONENT: tl.constexpr):
    """base ** (exponent - 1) given base ** exponent, a factor of what vanishes with the base; EXPONENT as for power."""
    if EXPONENT == 1:
        return tl.full(base.shape, 1.0, tl.float32)
    if EXPONENT == 2:
        return base
    if EXPONENT == 4:
        return base * base * base
    return tl.where(base < 1.2e-38, 0.0, powered / base)  # no normal number: the quotient may be infinite


@triton.jit
def focal_terms(p, q, log_p, log_q, y, is_positive, HARD: tl.constexpr):
    """(1 - p_t, log(1 - p_t), its derivative by the logit but for the sign 1 - 2 y, cross-entropy)."""
    one_minus_pt = mix(y, is_positive, q, p, HARD)
    log_one_minus_pt = choose(y, is_positive, log_q, log_p, HARD)
    d_log_one_minus_pt = choose(y, is_positive, p, q, HARD)  # p (1 - p) / (1 - p_t)
    if not HARD:
        between = (y > 0) & (y < 1)
        log_one_minus_pt = tl.where(between, tl.log(one_minus_pt), log_one_minus_pt)
        d_log_one_minus_pt = tl.where(between, p * q / tl.maximum(one_minus_pt, 1e-37), d_log_one_minus_pt)
    return one_minus_pt, log_one_minus_pt, d_log_one_minus_pt, -choose(y, is_positive, log_p, log_q, HARD)


@triton.jit
def focal_negative(p, q, log_p, log_q, gamma, detach, EXPONENT: tl.constexpr):
    """p ** gamma (-log(1 - p)) and its derivative, without that of p ** gamma where detach is 1."""
    modulating = power(p, log_p, gamma, EXPONENT)
    return modulating * -log_q, modulating * ((1 - detach) * gamma * q * -log_q + p)


@triton.jit
def quality(p, q, log_p, log_q, y, is_positive, beta, EXPONENT: tl.constexpr, HARD: tl.constexpr):
    """|y - p| ** beta BCE(p, y) and its derivative."""
    cross_entropy = -choose(y, is_positive, log_p, log_q, HARD)
    residual = mix(y, is_positive, -q, p, HARD)  # p - y
    distance = tl.abs(residual)
    # through: beta |p - y| ** (beta - 1) sign(p - y), 0 at p = y
    if EXPONENT == 0:
        modulating = tl.full(p.shape, 1.0, tl.float32)
        through = tl.zeros(p.shape, tl.float32)
    elif EXPONENT == 2:
        modulating = distance * distance
        through = 2 * residual
    else:
        modulating = power_by_base(distance, beta, EXPONENT)
        through = tl.where(distance == 0, 0.0, beta * modulating / residual)
    return modulating * cross_entropy, modulating * residual + through * cross_entropy * p * q
