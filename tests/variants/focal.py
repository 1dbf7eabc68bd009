"""Focal loss, arXiv 1708.02002."""

import math

from tests.oracle import focal_of_probability, formulas
from tests.oracle.points import sigmoid_focal
from tests.variants.variant import ALPHA, GAMMA, PER_CLASS, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, gamma, alpha):
    return sigmoid_focal(x, y, gamma, alpha)


def point_of_probability(p, y, positive, eps, gamma, alpha):
    return sigmoid_focal(p, y, gamma, alpha, focal_of_probability)


def formula(x, y, positive, gamma, alpha):
    """alpha_t (1 - p_t)^gamma BCE(p, y)."""
    return formulas.focal(x, y, gamma, alpha)


VARIANT = Variant(
    kind='FusedFocalLoss',
    function='sigmoid_focal_loss',
    tried={'gamma': GAMMA, 'alpha': ALPHA},
    vectors=PER_CLASS,
    probabilities='activated',
    settings={
        'no alpha, as fvcore': dict(alpha=-1),
        'negatives silent': dict(alpha=1, gamma=0),
        'a small exponent, no alpha': dict(gamma=0.5, alpha=None),
    },
    point=point,
    point_of_probability=point_of_probability,
    formula=formula,
    by_hand=((0, 1, LN2 / 16, -(LN2 + 0.5) / 16, {}),),
    passes=71,
)
