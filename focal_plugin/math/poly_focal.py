"""Poly focal loss. Leng et al., PolyLoss: A Polynomial Expansion Perspective of Classification Loss, arXiv 2204.12511."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import choose, modulated_focal
from focal_plugin.math.focal import by_target
from focal_plugin.math.spec import ALPHA, GAMMA, Parameter, Spec


def pack(epsilon, gamma, alpha, alpha_on_poly):
    positive, negative = by_target(alpha)
    poly = (epsilon * positive, epsilon * negative) if alpha_on_poly else (epsilon, epsilon)
    return (gamma, positive, negative, *poly)


def value(x, p, q, log_p, log_q, y, is_positive, gamma, alpha_positive, alpha_negative, poly_positive, poly_negative):
    one_minus_pt, modulating, log_pt = modulated_focal(x, p, q, log_p, log_q, y, gamma)
    alpha, poly = choose(y, alpha_positive, alpha_negative), choose(y, poly_positive, poly_negative)
    return modulating * (poly * one_minus_pt - alpha * log_pt)


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma, alpha_positive, alpha_negative, poly_positive, poly_negative,
    EXPONENT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    one_minus_pt, log_one_minus_pt, d_log_one_minus_pt, cross_entropy = prim.focal_terms(
        p, q, log_p, log_q, y, is_positive, HARD
    )
    alpha = prim.mix(y, is_positive, alpha_positive, alpha_negative, HARD)
    poly = prim.mix(y, is_positive, poly_positive, poly_negative, HARD)
    modulating = prim.power(one_minus_pt, log_one_minus_pt, gamma, EXPONENT)
    value = modulating * tl.fma(alpha, cross_entropy, poly * one_minus_pt)
    through = d_log_one_minus_pt * (alpha * gamma * cross_entropy + poly * (gamma + 1) * one_minus_pt)
    if HARD:
        return value, tl.where(is_positive, -modulating, modulating) * (through + alpha * one_minus_pt)
    residual = prim.mix(y, is_positive, -q, p, HARD)  # p - y
    return value, modulating * ((1 - 2 * y) * through + alpha * residual)


SPEC = Spec(
    name='poly_focal',
    title='Poly-1 focal loss of `PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions`',
    paper='2204.12511',
    formula='alpha_t (1 - p_t)^gamma (-log p_t) + epsilon (1 - p_t)^(gamma + 1)',
    parameters=(
        Parameter('epsilon', 1.0, 'Coefficient of the polynomial term', low=-1),
        GAMMA,
        ALPHA,
        Parameter('alpha_on_poly', False, "Whether alpha_t multiplies the polynomial term too, unlike the paper's"),
    ),
    pack=pack,
    factors=(1, 2),
    value=value,
    value_and_grad=value_and_grad,
)
