"""Varifocal loss. Zhang et al., VarifocalNet, arXiv 2008.13367."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton
from dataclasses import replace

import torch

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import cross_entropy, detached, power
from focal_plugin.math.spec import DETACH_WEIGHT, GAMMA, Parameter, Spec


def pack(alpha, gamma, iou_weighted, detach_weight):
    return gamma, alpha, float(iou_weighted), float(detach_weight)


def value(x, p, q, log_p, log_q, y, is_positive, gamma, alpha, iou_weighted, detach_weight):
    positive = (iou_weighted * y + (1 - iou_weighted)) * cross_entropy(x, p, q, log_p, log_q, y)
    negative = alpha * detached(power(p, lambda: log_p, gamma), detach_weight) * -log_q
    return torch.where(y <= 0, negative, positive)  # a NaN is no negative


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma, alpha, iou_weighted, detach_weight,
    EXPONENT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    negative, negative_slope = prim.focal_negative(p, q, log_p, log_q, gamma, detach_weight, EXPONENT)
    weight = iou_weighted * y + (1 - iou_weighted)
    positive = -prim.choose(y, is_positive, log_p, log_q, HARD)
    residual = prim.mix(y, is_positive, -q, p, HARD)  # p - y
    value = tl.where(y <= 0, alpha * negative, weight * positive)  # NaN is no negative
    return value, tl.where(y <= 0, alpha * negative_slope, weight * residual)


SPEC = Spec(
    name='varifocal',
    title='Varifocal loss of `VarifocalNet: An IoU-aware Dense Object Detector`, with y the quality (IoU) of a positive',
    paper='2008.13367',
    formula='y BCE(p, y) where y > 0;  alpha p^gamma (-log q) elsewhere',
    parameters=(
        Parameter('alpha', 0.75, 'Weight of the negatives'),
        replace(GAMMA, vector=False),
        Parameter('iou_weighted', True, 'Whether a positive is weighted by its quality'),
        DETACH_WEIGHT,
    ),
    pack=pack,
    factors=(1,),
    value=value,
    value_and_grad=value_and_grad,
    form='dense',
    scored=True,
)
