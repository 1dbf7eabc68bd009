"""Equalized focal loss, arXiv 2201.02593."""

import math

from tests.oracle import formulas, long
from tests.oracle.points import scaled, sigmoid_focal
from tests.variants.variant import ALPHA, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, gamma, alpha, scale, ratio):
    """(gamma_j / gamma) times the focal loss with gamma_j = gamma + scale (1 - ratio_j)."""
    exponent = gamma + scale * (1 - long(ratio))
    return scaled(exponent / gamma, sigmoid_focal(x, y, exponent, alpha))


def formula(x, y, positive, gamma, alpha, scale, ratio):
    exponent = gamma + scale * (1 - ratio)
    return exponent / gamma * formulas.focal(x, y, exponent, alpha)


VARIANT = Variant(
    kind='FusedEqualizedFocalLoss',
    function='equalized_focal_loss',
    tried={'gamma': (2.0, 0.5, 1, 1.5, 5), 'alpha': ALPHA, 'scale': (8.0, 0, 2), 'ratio': (1.0, 0, 0.625, 0.875)},
    vectors={'ratio': (0.0, 0.25, 0.5, 0.875, 1.0)},
    required_by_class=lambda classes: {'num_classes': classes},
    settings={
        'the rarest class': dict(ratio=0.0),
        'between': dict(ratio=0.625, gamma=1.5, alpha=None),
        'a small exponent': dict(gamma=0.5, ratio=0.875),
    },
    point=point,
    formula=formula,
    by_hand=((0, 1, LN2 / 32, -(4 * LN2 * 0.5 + 0.5) / 32, dict(ratio=0.75)),),
    passes=71,
)
