"""Asymmetric loss, arXiv 2009.14119."""

import math

import numpy as np
import torch

from tests.oracle import formulas, long, times
from tests.oracle.points import Point, Sigmoid, effect
from tests.variants.variant import EXPONENTS, FLAGS, Variant

LN2, LN3 = math.log(2), math.log(3)


def point(x, y, positive, eps, gamma_pos, gamma_neg, clip, detach_weight):
    """y (1 - p)^gamma_pos (-log p) + (1 - y) p_m^gamma_neg (-log(1 - p_m)), p_m = max(p - clip, 0)."""
    s, clip = Sigmoid(x), long(clip)
    through = 0 if detach_weight else 1
    attracted = times(s.q**gamma_pos, s.ce_positive)
    attraction = -(s.q**gamma_pos) * (through * gamma_pos * times(s.p, s.ce_positive) + s.q)

    def repelled(change):
        shifted = np.maximum(s.p * (1 + change) - clip, 0)
        if clip == 0 and change == 0:
            ce, odds = s.ce_negative, s.p  # p q / (1 - p_m)
        else:
            ce, odds = -np.log1p(-shifted), s.p * s.q / (1 - shifted)
        inside = shifted > 0
        power = np.where(inside, shifted ** (gamma_neg - 1), 0) * times(s.p * s.q, ce)
        slope = through * gamma_neg * power + shifted**gamma_neg * odds
        return times(shifted**gamma_neg, ce), np.where(inside, slope, 0)

    value, slope = repelled(0)
    off = (0, 0) if clip == 0 else effect(repelled, eps)
    rest = 1 - y
    return Point(
        times(y, attracted) + times(rest, value),
        y * attraction + rest * slope,
        times(y, attracted) + times(rest, value),
        y * np.abs(attraction) + rest * slope,
        rest * off[0],
        rest * off[1],
    )


def formula(x, y, positive, gamma_pos, gamma_neg, clip, detach_weight):
    p, q = formulas.sigmoid(x), formulas.sigmoid(-x)
    attracted = formulas.detached(q**gamma_pos, detach_weight) * formulas.softplus(-x)
    if clip == 0:
        repelled = formulas.detached(p**gamma_neg, detach_weight) * formulas.softplus(x)
    else:
        shifted = torch.where(p > clip, p - clip, 0.5)
        repelled = formulas.detached(shifted**gamma_neg, detach_weight) * -torch.log1p(-shifted)
        repelled = torch.where(p > clip, repelled, 0.0)
    return y * attracted + (1 - y) * repelled


VARIANT = Variant(
    kind='FusedAsymmetricLoss',
    function='asymmetric_loss',
    tried={
        'gamma_pos': (1.0, *EXPONENTS),
        'gamma_neg': (4.0, *EXPONENTS),
        'clip': (0.05, 0, 0.25),
        'detach_weight': FLAGS,
    },
    settings={
        "their code's default": dict(detach_weight=True),
        "the paper's": dict(gamma_pos=0.0),
        'no shift': dict(clip=0.0, gamma_pos=2.0, gamma_neg=2.0),
        'no shift, detached': dict(clip=0.0, gamma_pos=0.5, gamma_neg=0.5, detach_weight=True),
        'a step at p = clip': dict(gamma_neg=0.0, clip=0.25),
        'steep at p = clip': dict(gamma_pos=5, gamma_neg=0.5),
    },
    point=point,
    formula=formula,
    by_hand=(
        (LN3, 0, LN2 / 2, 3 * (LN2 + 1) / 16, dict(gamma_pos=0, gamma_neg=1, clip=0.25)),
        (LN3, 0, LN2 / 2, 3 / 16, dict(gamma_pos=0, gamma_neg=1, clip=0.25, detach_weight=True)),
        (-LN3, 0, 0, 0, dict(gamma_pos=0, gamma_neg=1, clip=0.375)),
        (LN3, 1, math.log(4 / 3), -0.25, dict(gamma_pos=0, gamma_neg=1, clip=0.25)),
    ),
    rounded=lambda arguments: (0,) if arguments['clip'] else (),
    units_of_p=5,  # 2 ** -22 of ex2, 2 ** -23 of rcp, four roundings
    passes=142,
)
