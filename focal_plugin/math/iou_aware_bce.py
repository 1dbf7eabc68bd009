"""IoU-aware BCE loss. Cai et al., Align-DETR, arXiv 2304.07527."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton
from dataclasses import replace

import torch

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import cross_entropy, detached, power, power_by_base
from focal_plugin.math.spec import DETACH_WEIGHT, GAMMA, Parameter, Spec


def pack(k, gamma, detach_weight):
    return gamma, k, float(detach_weight)


def value(x, p, q, log_p, log_q, y, is_positive, gamma, k, detach_weight):
    t = (power(p, lambda: log_p, k) * power_by_base(y.to(p.dtype), 1 - k)).clamp(min=0.01).detach()
    negative = detached(power(p, lambda: log_p, gamma), detach_weight) * -log_q
    return torch.where(is_positive, cross_entropy(x, p, q, log_p, log_q, t), negative)


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma, k, detach_weight, EXPONENT: tl.constexpr, HARD: tl.constexpr
):  # fmt: skip
    negative, slope = prim.focal_negative(p, q, log_p, log_q, gamma, detach_weight, EXPONENT)
    t = prim.power_by_log_near_one(log_p, k)
    if not HARD:
        t *= prim.power_by_base(y, 1 - k, -1) + (y - y)  # NaN stays where the exponent is 0
    t = tl.maximum(t, 0.01, propagate_nan=tl.PropagateNan.ALL)
    positive = -prim.choose(t, is_positive, log_p, log_q, False)
    residual = prim.mix(t, is_positive, -q, p, False)  # p - t
    return tl.where(is_positive, positive, negative), tl.where(is_positive, residual, slope)


SPEC = Spec(
    name='iou_aware_bce',
    title='IoU-aware BCE loss of `Align-DETR`, with y the quality (IoU) of a positive',
    paper='2304.07527',
    formula='BCE(p, t), t = detach(max(p^k y^(1 - k), 0.01)) for a positive;  p^gamma (-log q) for a negative',
    parameters=(
        Parameter('k', 0.25, 'Share of the prediction in the target of a positive', high=1),
        replace(GAMMA, vector=False),
        DETACH_WEIGHT,
    ),
    pack=pack,
    value=value,
    value_and_grad=value_and_grad,
    form='scored',
    scored=True,
    per_row=True,
)
