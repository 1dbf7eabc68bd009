"""Class-balanced focal loss, arXiv 1901.05555."""

import numpy as np

from tests.oracle import array, formulas, long
from tests.oracle.points import sigmoid_focal
from tests.variants.variant import GAMMA, Variant


def point(x, y, positive, eps, gamma, **of_rows):
    """The focal loss without alpha; its factor per row is factor_of_label's."""
    return sigmoid_focal(x, y, gamma, None)


def formula(x, y, positive, gamma, **of_rows):
    return formulas.focal(x, y, gamma, None)


def factor_of_label(labels, samples_per_class, class_beta, **of_points) -> np.ndarray:
    """(1 - b) / (1 - b^n), normalised to the sum C; 1 for the background."""
    count, beta = long(samples_per_class), long(class_beta)
    with np.errstate(divide='ignore'):
        factors = (1 - beta) / -np.expm1(count * np.log(beta))
    factors = factors * len(count) / factors.sum()
    return np.append(factors, 1)[array(labels)]


VARIANT = Variant(
    kind='FusedClassBalancedFocalLoss',
    function='class_balanced_focal_loss',
    tried={'samples_per_class': (None,), 'class_beta': (0.9999, 0, 0.5, 0.999), 'gamma': GAMMA},
    required=lambda classes: {'samples_per_class': [10.0 ** (c % 4) for c in range(classes)]},
    dense=False,
    settings={'cross-entropy': dict(gamma=0), 'below 1': dict(gamma=0.5), 'a steep one': dict(gamma=5)},
    point=point,
    formula=formula,
    factor_of_label=factor_of_label,
    passes=71,
)
