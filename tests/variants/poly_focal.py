"""Poly-1 focal loss of PolyLoss, arXiv 2204.12511."""

import math

import numpy as np

from tests.oracle import alpha_t, formulas
from tests.oracle.points import Point, Sigmoid, sigmoid_focal
from tests.variants.variant import ALPHA, FLAGS, GAMMA, PER_CLASS, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, epsilon, gamma, alpha, alpha_on_poly):
    """The focal loss + epsilon (1 - p_t)^(gamma + 1), with alpha_on_poly times alpha_t."""
    s, base = Sigmoid(x), sigmoid_focal(x, y, gamma, alpha)
    factor = epsilon * (alpha_t(alpha, y) if alpha_on_poly else np.ones_like(y))
    one_minus_pt = y * s.q + (1 - y) * s.p
    term = factor * one_minus_pt ** (gamma + 1)
    slope = factor * (gamma + 1) * one_minus_pt**gamma * (1 - 2 * y) * s.p * s.q
    return Point(
        base.value + term,
        base.grad + slope,
        base.value_terms + np.abs(term),
        base.grad_terms + np.abs(slope),
        0.0,
        base.grad_through_p,
    )


def formula(x, y, positive, epsilon, gamma, alpha, alpha_on_poly):
    factor = epsilon * (formulas.alpha_t(alpha, y) if alpha_on_poly else 1.0)
    return formulas.focal(x, y, gamma, alpha) + factor * formulas.one_minus_pt(x, y) ** (gamma + 1)


VARIANT = Variant(
    kind='FusedPolyFocalLoss',
    function='poly_focal_loss',
    tried={'epsilon': (1.0, -1, 0, 0.5, 2), 'gamma': GAMMA, 'alpha': ALPHA, 'alpha_on_poly': FLAGS},
    vectors=PER_CLASS,
    settings={
        'alpha on both terms': dict(alpha_on_poly=True, epsilon=2.0),
        'the least epsilon, no alpha': dict(epsilon=-1.0, alpha=None),
        'cross-entropy + 1 - p_t': dict(gamma=0, epsilon=0.5),
        'below 1': dict(gamma=0.5),
        'a steep one': dict(gamma=5, alpha_on_poly=True),
    },
    point=point,
    formula=formula,
    by_hand=(
        (0, 1, LN2 / 16 + 1 / 8, -(LN2 + 0.5) / 16 - 3 / 16, {}),
        (0, 1, LN2 / 16 + 1 / 32, -(LN2 + 0.5) / 16 - 3 / 64, dict(alpha_on_poly=True)),
    ),
    passes=79,
)
