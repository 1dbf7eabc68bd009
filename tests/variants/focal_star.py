"""Focal loss star, from the appendix of arXiv 1708.02002."""

import math

import numpy as np

from tests.oracle import alpha_t, formulas, softplus, times
from tests.oracle.points import Point
from tests.variants.variant import ALPHAS, PER_CLASS, Variant


def point(x, y, positive, eps, gamma, beta, alpha):
    """a softplus(-z) / gamma, z = gamma x_t + beta, x_t = x (2 y - 1)."""
    a = alpha_t(alpha, y)
    z = gamma * times(2 * y - 1, x) + beta
    slope = -a * (2 * y - 1) / (1 + np.exp(z))
    value = times(a, softplus(-z)) / gamma
    # z of a soft target is rounded where 2 y - 1 and the sum are: p^gamma, in effect.
    rounding = np.where((y == 0) | (y == 1) | ~np.isfinite(x), 0, np.abs(gamma * x) + beta)
    through_value, through_slope = a / (1 + np.exp(z)) * rounding / gamma, np.abs(slope) / (1 + np.exp(-z)) * rounding
    return Point(value, slope, value, np.abs(slope), through_value, through_slope)


def formula(x, y, positive, gamma, beta, alpha):
    return formulas.alpha_t(alpha, y) * formulas.softplus(-(gamma * x * (2 * y - 1) + beta)) / gamma


def silent(y, positive, arguments):
    alpha = arguments['alpha']
    return np.zeros(y.shape, bool) if alpha is None else alpha * y + (1 - alpha) * (1 - y) == 0


VARIANT = Variant(
    kind='FusedFocalStarLoss',
    function='sigmoid_focal_star_loss',
    tried={'gamma': (1.0, 0.5, 2, 4.0), 'beta': (0.0, 1.0, -1.5, 3), 'alpha': (None, *ALPHAS)},
    vectors={'gamma': (0.5, 1.0, 2.0, 4.0), 'alpha': PER_CLASS['alpha']},
    settings={
        "the paper's flat one": dict(gamma=4.0, beta=0.0, alpha=0.25),
        "the paper's shifted one": dict(gamma=2.0, beta=1.0),
        'a slope below 1': dict(gamma=0.5, beta=3.0, alpha=1),
    },
    point=point,
    formula=formula,
    by_hand=(
        (0, 1, math.log1p(1 / math.e) / 2, -1 / (1 + math.e), dict(gamma=2, beta=1)),
        (math.log(3), 1, 0.25 * math.log(4 / 3), -0.0625, dict(alpha=0.25)),
    ),
    silent=silent,
    passes=85,
)
