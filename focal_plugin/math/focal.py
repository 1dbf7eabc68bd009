"""Sigmoid focal loss. Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import choose, modulated_focal
from focal_plugin.math.spec import ALPHA, GAMMA, Spec


def by_target(alpha):
    """(alpha of positives, alpha of negatives); without alpha both are 1."""
    return (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)


def pack(gamma, alpha):
    return (gamma, *by_target(alpha))


def value(x, p, q, log_p, log_q, y, is_positive, gamma, alpha_positive, alpha_negative):
    _, modulating, log_pt = modulated_focal(x, p, q, log_p, log_q, y, gamma)
    return choose(y, -alpha_positive, -alpha_negative) * modulating * log_pt


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma, alpha_positive, alpha_negative,
    EXPONENT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    one_minus_pt, log_one_minus_pt, d_log_one_minus_pt, cross_entropy = prim.focal_terms(
        p, q, log_p, log_q, y, is_positive, HARD
    )
    alpha = prim.mix(y, is_positive, alpha_positive, alpha_negative, HARD)
    modulated = alpha * prim.power(one_minus_pt, log_one_minus_pt, gamma, EXPONENT)
    if HARD:
        signed = tl.where(is_positive, -modulated, modulated)
        return modulated * cross_entropy, signed * (gamma * d_log_one_minus_pt * cross_entropy + one_minus_pt)
    residual = prim.mix(y, is_positive, -q, p, HARD)  # p - y
    return modulated * cross_entropy, modulated * (gamma * (1 - 2 * y) * d_log_one_minus_pt * cross_entropy + residual)


SPEC = Spec(
    name='focal',
    title='Sigmoid focal loss of `Focal Loss for Dense Object Detection`',
    paper='1708.02002',
    formula='alpha_t (1 - p_t)^gamma (-log p_t)',
    parameters=(GAMMA, ALPHA),
    pack=pack,
    factors=(1, 2),
    value=value,
    value_and_grad=value_and_grad,
    probabilities='activated',
    function='sigmoid_focal_loss',
)
