"""Quality focal loss, arXiv 2006.04388."""

import math

import numpy as np

from tests.oracle import TORCH_EPS, formulas, times
from tests.oracle.points import Point, Sigmoid, effect, quality
from tests.variants.variant import GAMMA, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, beta):
    """|p - y|^beta BCE(p, y)."""
    return quality(Sigmoid(x), y, 1 - y, 0.0, beta, eps)


def point_of_probability(p, y, positive, eps, beta):
    """The same of probabilities: logarithms and p (1 - p) end where torch's binary_cross_entropy has them end."""
    q, distance = 1 - p, p - y
    entropy = times(y, np.minimum(-np.log(p), 100)) + times(1 - y, np.minimum(-np.log1p(-p), 100))

    def at(change):
        d = distance + change * p
        size = np.abs(d)
        through_modulation = np.where(size == 0, 0, beta * size ** (beta - 1)) * entropy
        through_entropy = size**beta * d / np.maximum(p * q, TORCH_EPS)
        return size**beta * entropy, np.sign(d) * through_modulation + through_entropy

    (value, grad), (off, grad_off) = at(0), effect(at, eps)
    if 0 < beta < 1:
        grad_off = np.where(np.abs(distance) <= 2 * eps * p, np.inf, grad_off)
    return Point(value, grad, value, np.abs(grad), off, grad_off)


def formula(x, y, positive, beta):
    return formulas.distance(x, y, beta) * formulas.cross_entropy(x, y)


VARIANT = Variant(
    kind='FusedQualityFocalLoss',
    function='quality_focal_loss',
    tried={'beta': GAMMA},
    per_row=True,
    scored=True,
    probabilities='activated',
    settings={
        'cross-entropy': dict(beta=0),
        'a pole at p = y': dict(beta=0.5),
        'a step at p = y': dict(beta=1),
        'any exponent': dict(beta=1.5),
        'a steep one': dict(beta=5),
    },
    point=point,
    point_of_probability=point_of_probability,
    formula=formula,
    by_hand=((0, 0.25, LN2 / 16, LN2 / 8 + 1 / 64, {}), (0, 0.75, LN2 / 16, -LN2 / 8 - 1 / 64, {})),
    without_target=dict(beta=0.0),
    passes=81,
)
