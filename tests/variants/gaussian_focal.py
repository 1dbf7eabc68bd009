"""Gaussian focal loss of heat maps, arXiv 1808.01244."""

import math

import numpy as np
import torch

from tests.oracle import formulas, long, times
from tests.oracle.points import Point, Sigmoid, background, either
from tests.variants.variant import EXPONENTS, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, alpha, gamma, pos_weight, neg_weight):
    """(1 - p)^alpha (-log p) where y = 1, else (1 - y)^gamma p^alpha (-log(1 - p)); of logits."""
    s = Sigmoid(x)
    modulating, ce = s.q**alpha, s.ce_positive
    attraction = -pos_weight * modulating * (alpha * times(s.p, ce) + s.q)
    attracted = Point.of(pos_weight * times(modulating, ce), attraction)
    return either(y == 1, attracted, background(s, neg_weight * (1 - y) ** gamma, alpha, False))


def point_of_probability(p, y, positive, eps, alpha, gamma, pos_weight, neg_weight):
    """As mmdet, whose logarithms are of p + 1e-12 and 1 - p + 1e-12; the derivative is by the probability.

    Whether 1e-12 vanishes beside a p above 1e-6, as it does in float32, is left open.
    """
    attracted = _clipped_power(1 - p, p, alpha, pos_weight, -1, eps)
    repelled = _clipped_power(p, 1 - p, alpha, neg_weight * (1 - y) ** gamma, 1, eps)
    return either(y == 1, attracted, repelled)


def _clipped_power(far, near, alpha, factor, sign, eps) -> Point:
    """factor far^alpha (-log(near + 1e-12)), near = 1 - far; the derivative of far by p is sign."""

    def with_clip(clip):
        ce = np.where(far < 0.5, -np.log1p(clip - far), -np.log(near + clip))
        power = np.where((far == 0) & (alpha < 1), 0, far ** (alpha - 1) * ce)
        return factor * far**alpha * ce, sign * factor * (alpha * power + far**alpha / (near + clip))

    clip = long(1e-12)
    value, grad = with_clip(clip)
    without = with_clip(np.where(near > 1e-6, 0, clip))
    through = (np.abs(a - b) / eps for a, b in zip((value, grad), without, strict=True))
    return Point(value, grad, np.abs(value), np.abs(grad), *through)


def formula(x, y, positive, alpha, gamma, pos_weight, neg_weight):
    p = formulas.sigmoid(x)
    attracted = pos_weight * formulas.sigmoid(-x) ** alpha * formulas.softplus(-x)
    around = torch.where(y == 1, 0.5, 1 - y)  # at a centre 0 ** gamma has no derivative
    return torch.where(y == 1, attracted, neg_weight * around**gamma * p**alpha * formulas.softplus(x))


def silent(y, positive, arguments):
    return np.where(y == 1, arguments['pos_weight'] == 0, arguments['neg_weight'] == 0)


VARIANT = Variant(
    kind='FusedGaussianFocalLoss',
    function='gaussian_focal_loss',
    tried={
        'alpha': (2.0, *EXPONENTS, 0.001),
        'gamma': (4.0, *EXPONENTS),
        'pos_weight': (1.0, 0, 0.5, 3),
        'neg_weight': (1.0, 0, 0.5, 3),
    },
    labelled=False,  # heat maps
    probabilities='from_logits',
    settings={
        'no powers': dict(alpha=0, gamma=0),
        'powers below 1': dict(alpha=0.5, gamma=0.5),
        'odd weights': dict(alpha=1.5, gamma=1, pos_weight=0.5, neg_weight=3.0),
        'steep, negatives silent': dict(alpha=5, gamma=5, neg_weight=0.0),
    },
    point=point,
    point_of_probability=point_of_probability,
    formula=formula,
    by_hand=(
        (0, 1, LN2 / 2, -LN2 / 2 - 0.25, dict(pos_weight=2)),
        (0, 0.5, 3 * LN2 / 64, 3 * (LN2 + 0.5) / 64, dict(neg_weight=3)),
    ),
    silent=silent,
    passes=104,
)
