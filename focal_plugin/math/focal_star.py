"""Focal loss*, the paper's second form of the idea. Lin et al., arXiv 1708.02002, appendix A."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton
from dataclasses import replace

import torch

from focal_plugin.lazy import prim, tl
from focal_plugin.math.derivatives import terms_of_logit
from focal_plugin.math.eager import choose
from focal_plugin.math.focal import by_target
from focal_plugin.math.spec import ALPHA, GAMMA, Parameter, Spec


def pack(gamma, beta, alpha):
    return (gamma, beta, *by_target(alpha))


def value(x, p, q, log_p, log_q, y, is_positive, gamma, beta, alpha_positive, alpha_negative):
    # 2 y - 1 is exact near y = 0.5, where y x - (1 - y) x would cancel.
    margin = gamma * (torch.where(y, x, -x) if y.dtype == torch.bool else x * (2 * y - 1)) + beta
    _, _, log_right, _ = terms_of_logit(margin)
    return choose(y, alpha_positive, alpha_negative) * -log_right / gamma


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma, beta, alpha_positive, alpha_negative,
    EXPONENT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    if HARD:
        signed = tl.where(is_positive, x, -x)
    else:
        signed = tl.where((y == 0.5) & (tl.abs(x) == float('inf')), 0.0, x * (2 * y - 1))
    _, _, wrong, log_right, _ = prim.terms_of_logit(gamma * signed + beta)
    alpha = prim.mix(y, is_positive, alpha_positive, alpha_negative, HARD)
    return alpha * -log_right / gamma, alpha * wrong * (1 - 2 * y)


SPEC = Spec(
    name='focal_star',
    title='Focal loss* of `Focal Loss for Dense Object Detection`, appendix (gamma 2 with beta 1, or gamma 4 with beta 0)',
    paper='1708.02002',
    formula='alpha_t (-log sigmoid(gamma x_t + beta)) / gamma,  x_t = x (2 y - 1)',
    parameters=(
        replace(GAMMA, default=1.0, above=True, doc='Steepness'),
        Parameter('beta', 0.0, 'Shift of the margin', low=-float('inf')),
        replace(ALPHA, default=None),
    ),
    pack=pack,
    factors=(2, 3),
    value=value,
    value_and_grad=value_and_grad,
    function='sigmoid_focal_star_loss',
)
