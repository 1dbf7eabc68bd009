"""Matchability-aware loss. Huang et al., DEIM: DETR with Improved Matching, arXiv 2412.04234."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton
from dataclasses import replace

import torch

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import cross_entropy, power, power_by_base
from focal_plugin.math.spec import GAMMA, Parameter, Spec


def pack(gamma, mal_alpha):
    return gamma, mal_alpha


def value(x, p, q, log_p, log_q, y, is_positive, gamma, mal_alpha):
    t = y if y.dtype == torch.bool else power_by_base(y, gamma)
    negative = mal_alpha * power(p, lambda: log_p, gamma).detach() * -log_q
    return torch.where(is_positive, cross_entropy(x, p, q, log_p, log_q, t), negative)


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma, mal_alpha, EXPONENT: tl.constexpr, HARD: tl.constexpr
):  # fmt: skip
    negative, slope = prim.focal_negative(p, q, log_p, log_q, gamma, 1.0, EXPONENT)
    if HARD:
        return tl.where(is_positive, -log_p, mal_alpha * negative), tl.where(is_positive, -q, mal_alpha * slope)
    t = prim.power_by_base(y, gamma, EXPONENT)
    if EXPONENT == 0:
        t += y - y  # NaN stays
    positive = -prim.choose(t, is_positive, log_p, log_q, HARD)
    residual = prim.mix(t, is_positive, -q, p, HARD)  # p - t
    return tl.where(is_positive, positive, mal_alpha * negative), tl.where(is_positive, residual, mal_alpha * slope)


SPEC = Spec(
    name='matchability_aware',
    title='Matchability-aware loss of `DEIM: DETR with Improved Matching for Fast Convergence`, with y the quality (IoU)',
    paper='2412.04234',
    formula='BCE(p, y^gamma) for a positive;  mal_alpha detach(p)^gamma (-log q) for a negative',
    parameters=(
        replace(GAMMA, default=1.5, vector=False),
        Parameter('mal_alpha', 1.0, 'Weight of the negatives'),
    ),
    pack=pack,
    factors=(1,),
    value=value,
    value_and_grad=value_and_grad,
    form='scored',
    scored=True,
    per_row=True,
)
