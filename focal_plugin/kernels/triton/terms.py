"""What a probability gives to the point functions, and the logit of a negative: primitives.terms_of_logit takes any logit.

Coefficients: tools/maintain/fit.py.
"""

import triton
import triton.language as tl

from focal_plugin.kernels.triton import primitives as prim


@triton.jit
def terms_of_negative(
    x, PRECISE: tl.constexpr, VALUE: tl.constexpr, GRADIENT: tl.constexpr, PLAIN_SUM: tl.constexpr
):  # fmt: skip
    """terms_of_logit for the VALUE of a target 0, for its derivative (GRADIENT), or for both, in fewer instructions.

    exp(x) is formed as it is, up to just below 2 ** 126, whose reciprocal is normal whatever the instructions' errors;
    1 - p is 0 where it is no normal number.
    PRECISE: errors of about 1e-6 in the logarithm and e; without it 4e-6, and the rounding of x * log2(e), which is at
    most 5e-6 of any result that is not subnormal. PLAIN_SUM: only the sum of all values is wanted, none of them left out:
    1 - p may stop at 2 ** -60 in it, and a NaN take its neighbour along.
    """
    near = tl.minimum(x, 41.5888308 if PLAIN_SUM else 87.3365, propagate_nan=tl.PropagateNan.ALL)
    if PRECISE:
        near = tl.maximum(near, -1e30, propagate_nan=tl.PropagateNan.ALL)  # an infinite logit would meet a 0
    power_of_two = near * 1.4426950408889634
    e = prim.exp2(power_of_two)
    if PRECISE:
        e = tl.fma(e, tl.fma(power_of_two, -0.6931471805599453, near), e)
    r = prim.reciprocal_by_two(1.0 + e) if PLAIN_SUM else prim.reciprocal(1.0 + e)
    if PRECISE:
        small = e < 0.25
        series = -0.0923484117 * e + 0.181709215
        series = series * e - 0.247781202
        series = series * e + 0.333208263
        series = series * e - 0.499997377
        series = series * e + 1.0
    else:
        small = e < 0.0625
        series = 0.311179757 * e - 0.499490201
        series = series * e + 0.999998271
    log1p = tl.where(small, series * e, prim.log2(1.0 + e) * 0.6931471805599453)
    if VALUE:
        log1p = tl.maximum(log1p, x)
    p = e * r
    q = tl.where(x > 87.3365448, 0.0, r) if GRADIENT else r
    return x, p, q, tl.where(x < 0, x - log1p, prim.log2(p) * 0.6931471805599453), -log1p


@triton.jit
def terms_of_probability(p, EPSILON: tl.constexpr):
    """The same of a probability.

    EPSILON is added inside logarithms, as in mmdet's Gaussian focal loss; where it is 0 a logarithm is never below -100,
    as in torch's binary_cross_entropy.
    """
    q = 1.0 - p
    if EPSILON > 0:
        # The derivative by p is formed from that by the logit: 0 / 0 there.
        p = tl.maximum(p, 1e-30, propagate_nan=tl.PropagateNan.ALL)
        q = tl.maximum(q, 1e-30, propagate_nan=tl.PropagateNan.ALL)
    log_p = tl.log(p + EPSILON)
    minus_log_q = prim.minus_log_of_complement(p, q + EPSILON)
    x = log_p + minus_log_q
    if EPSILON > 0:
        return x, p, q, log_p, -minus_log_q
    return x, p, q, tl.where(log_p < -100.0, -100.0, log_p), tl.where(minus_log_q > 100.0, -100.0, -minus_log_q)


@triton.jit
def outer_derivative_of_probability(p, q, y, EPSILON: tl.constexpr):
    """What the derivative by the logit is multiplied by to become the derivative by a probability."""
    if EPSILON > 0:
        variance = tl.where(y == 1, (p + EPSILON) * q, p * (q + EPSILON))
        return 1.0 / tl.where(variance < 1e-37, 1e-37, variance)
    variance = p * q
    return 1.0 / tl.where(variance < 1e-12, 1e-12, variance)
