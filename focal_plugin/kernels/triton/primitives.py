"""Device functions that the point functions and skeletons share."""

import triton
import triton.language as tl
from triton.language.target_info import is_cuda

_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def exp2(x):
    """2 ** x in one instruction: NVIDIA's gives 0 for what is below the smallest normal number."""
    if _INTERPRETED or not is_cuda():
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
    if _INTERPRETED or not is_cuda():
        return 1.0 / x
    return tl.inline_asm_elementwise('rcp.approx.ftz.f32 $0, $1;', '=f,f', [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def choose(y, is_positive, one, zero, HARD: tl.constexpr):
    """The mean of two terms weighted by y, exact at y = 1 and y = 0 whatever the other term is."""
    if HARD:
        return tl.where(is_positive, one, zero)
    mixed = y * one + (1 - y) * zero
    return tl.where(y == 1, one, tl.where(y == 0, zero, mixed))


@triton.jit
def log1p_unit(e):
    """log(1 + e) for e in [0, 1]: a fit of log1p(e) / e, relative error 5.2e-9, so that a small e keeps its digits."""
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
    """base ** exponent; EXPONENT is the exponent where that is 0, 1 or 2, else -1."""
    if EXPONENT == 0:
        return tl.full(base.shape, 1.0, tl.float32)
    if EXPONENT == 1:
        return base
    if EXPONENT == 2:
        return base * base
    # In base 2, as the hardware has it. exponent may be a vector over the classes with a 0 in it.
    return tl.where(exponent == 0, 1.0, tl.exp2(exponent * 1.4426950408889634 * log_base))


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
def terms_of_probability(p):
    """The same of a probability. As in torch's binary_cross_entropy, a logarithm is never below -100."""
    q = 1.0 - p
    log_p = tl.log(p)
    # Near 0 the logarithm of 1 - p is taken from p, which 1 - p has rounded away.
    series = -p * (1.0 + p * (0.5 + p * (0.333333333 + p * (0.25 + p * 0.2))))
    log_q = tl.where(p < 0.03125, series, tl.log(q))
    x = log_p - log_q
    return x, p, q, tl.where(log_p < -100.0, -100.0, log_p), tl.where(log_q < -100.0, -100.0, log_q)


@triton.jit
def outer_derivative_of_probability(p, q):
    """What the derivative by the logit is multiplied by to become the derivative by a probability."""
    variance = p * q
    return 1.0 / tl.where(variance < 1e-12, 1e-12, variance)


@triton.jit
def clamp(x, LIMIT: tl.constexpr):
    """To [-LIMIT, LIMIT]; NaN stays NaN."""
    return tl.clamp(x, -LIMIT, LIMIT, propagate_nan=tl.PropagateNan.ALL)
