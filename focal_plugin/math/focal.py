"""Sigmoid focal loss. Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton

from focal_plugin.lazy import LazyModule
from focal_plugin.math.eager import choose, log_choose, power
from focal_plugin.math.spec import Spec

tl = LazyModule('triton.language')
prim = LazyModule('focal_plugin.kernels.triton.primitives')


def pack(gamma, alpha):
    """(gamma, alpha of positives, alpha of negatives); without alpha both are 1."""
    return (gamma, 1.0, 1.0) if alpha is None else (gamma, alpha, 1 - alpha)


def value(x, p, q, log_p, log_q, y, is_positive, gamma, alpha_positive, alpha_negative):
    alpha = choose(y, alpha_positive, alpha_negative)
    modulating = power(choose(y, q, p), lambda: log_choose(y, q, p, log_q, log_p), gamma)
    return alpha * modulating * -choose(y, log_p, log_q)


def value_and_grad(
    x,
    p,
    q,
    log_p,
    log_q,
    y,
    is_positive,
    gamma,
    alpha_positive,
    alpha_negative,
    EXPONENT: tl.constexpr,
    HARD: tl.constexpr,
):
    alpha = prim.choose(y, is_positive, alpha_positive, alpha_negative, HARD)
    wrong = prim.choose(y, is_positive, q, p, HARD)  # 1 - p_t
    log_wrong = prim.choose(y, is_positive, log_q, log_p, HARD)
    slope = prim.choose(y, is_positive, p, q, HARD)  # p (1 - p) / (1 - p_t)
    if not HARD:
        between = (y > 0) & (y < 1)
        log_wrong = tl.where(between, prim.log(wrong), log_wrong)
        slope = tl.where(between, p * q / tl.maximum(wrong, 1e-37), slope)
    cross_entropy = -prim.choose(y, is_positive, log_p, log_q, HARD)
    modulated = alpha * prim.power(wrong, log_wrong, gamma, EXPONENT)
    if HARD:
        signed = tl.where(is_positive, -modulated, modulated)
        return modulated * cross_entropy, signed * (gamma * slope * cross_entropy + wrong)
    residual = prim.choose(y, is_positive, -q, p, HARD)  # p - y
    return modulated * cross_entropy, modulated * (gamma * (1 - 2 * y) * slope * cross_entropy + residual)


SPEC = Spec(
    name='focal',
    paper='1708.02002',
    formula='alpha_t (1 - p_t)^gamma (-log p_t)',
    defaults={'gamma': 2.0, 'alpha': 0.25},
    pack=pack,
    value=value,
    value_and_grad=value_and_grad,
)
