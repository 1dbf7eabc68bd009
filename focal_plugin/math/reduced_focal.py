"""Reduced focal loss. Sergievskiy and Ponamarev, Reduced Focal Loss: 1st Place Solution to xView, arXiv 1903.01347."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton
import math
from dataclasses import replace

import torch

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import choose, log_of_target, log_one_minus_pt_of, one_minus_pt_of, power
from focal_plugin.math.focal import by_target
from focal_plugin.math.spec import ALPHA, GAMMA, Parameter, Spec


def pack(threshold, gamma, alpha):
    margin = math.log(threshold / (1 - threshold)) if threshold < 1 else math.inf
    return (gamma, margin, 1 - threshold, 1 / threshold, *by_target(alpha))


def value(x, p, q, log_p, log_q, y, is_positive, gamma, margin, limit, inverse, alpha_positive, alpha_negative):
    one_minus_pt = one_minus_pt_of(p, q, y)
    # p_t < threshold; of a hard target by its logit, because p is 0.5 for all small ones
    if y.dtype == torch.bool:
        below = torch.where(y, x, -x) < margin
    else:
        below = torch.where(y == 1, x < margin, torch.where(y == 0, -x < margin, one_minus_pt > limit))
    ratio = torch.where(below, 1.0, one_minus_pt * inverse)
    log_ratio = lambda: torch.where(below, 0.0, log_one_minus_pt_of(p, q, log_p, log_q, y) + inverse.log())  # noqa: E731
    modulating = power(ratio, log_ratio, gamma)
    return choose(y, -alpha_positive, -alpha_negative) * modulating * log_of_target(x, p, q, log_p, log_q, y)


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma, margin, limit, inverse, alpha_positive, alpha_negative,
    EXPONENT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    one_minus_pt, log_one_minus_pt, d_log_one_minus_pt, cross_entropy = prim.focal_terms(
        p, q, log_p, log_q, y, is_positive, HARD
    )
    factor = prim.mix(y, is_positive, alpha_positive, alpha_negative, HARD)
    # p_t < threshold; of a hard target by its logit, because p is 0.5 for all small ones
    if HARD:
        below = tl.where(is_positive, x, -x) < margin
    else:
        below = tl.where((y == 0) | (y == 1), (tl.where(y == 1, x, -x) < margin).to(tl.int1), one_minus_pt > limit)
    # Of the ratio, since the power of 1 - p_t alone underflows.
    ratio_power = prim.power(one_minus_pt * inverse, log_one_minus_pt + tl.log(inverse), gamma, EXPONENT)
    factor *= tl.where(below, 1.0, ratio_power)
    exponent = tl.where(below, 0.0, gamma)
    if HARD:
        signed = tl.where(is_positive, -factor, factor)
        return factor * cross_entropy, signed * (exponent * d_log_one_minus_pt * cross_entropy + one_minus_pt)
    residual = prim.mix(y, is_positive, -q, p, HARD)  # p - y
    return factor * cross_entropy, factor * (exponent * (1 - 2 * y) * d_log_one_minus_pt * cross_entropy + residual)


SPEC = Spec(
    name='reduced_focal',
    title='Reduced focal loss of `Reduced Focal Loss: 1st Place Solution to xView object detection in Satellite Imagery`',
    paper='1903.01347',
    formula='alpha_t (-log p_t) where p_t < threshold;  alpha_t ((1 - p_t) / threshold)^gamma (-log p_t) elsewhere',
    parameters=(
        Parameter('threshold', 0.5, 'p_t below which the loss is the cross-entropy', high=1, above=True),
        GAMMA,
        replace(ALPHA, default=None),
    ),
    pack=pack,
    factors=(4, 5),
    value=value,
    value_and_grad=value_and_grad,
)
