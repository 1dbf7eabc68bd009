"""Reduced focal loss, arXiv 1903.01347."""

import math

import numpy as np
import torch

from tests.oracle import formulas, long
from tests.oracle.points import Sigmoid, either, scaled, sigmoid_focal
from tests.variants.variant import ALPHAS, EXPONENTS, PER_CLASS, Variant

LN2, LN3 = math.log(2), math.log(3)


def point(x, y, positive, eps, threshold, gamma, alpha):
    """BCE where p_t < threshold, else ((1 - p_t) / threshold)^gamma BCE; with alpha times alpha_t."""
    s, threshold = Sigmoid(x), long(threshold)
    plain = sigmoid_focal(x, y, 0.0, alpha)
    eased = scaled(1 / threshold**gamma, sigmoid_focal(x, y, gamma, alpha))
    # p_t - threshold, exact for a hard target even where p_t rounds to the threshold
    edge = np.log(threshold) - np.log1p(-threshold)
    soft = (y > 0) & (y < 1)
    short = np.where(soft, s.p * y + s.q * (1 - y) - threshold, np.where(y > 0.5, s.x, -s.x) - edge)
    chosen = either(short < 0, plain, eased)
    step = soft & (np.abs(short) <= eps * s.p)
    return chosen._replace(
        value_through_p=np.where(step, np.abs(plain.value - eased.value) / eps, 0),
        grad_through_p=chosen.grad_through_p + np.where(step, np.abs(plain.grad - eased.grad) / eps, 0),
    )


def formula(x, y, positive, threshold, gamma, alpha):
    one_minus_pt = formulas.one_minus_pt(x, y)
    modulating = torch.where(1 - one_minus_pt < threshold, 1.0, (one_minus_pt / threshold) ** gamma)
    return formulas.alpha_t(alpha, y) * modulating * formulas.cross_entropy(x, y)


VARIANT = Variant(
    kind='FusedReducedFocalLoss',
    function='reduced_focal_loss',
    tried={'threshold': (0.5, 0.1, 0.3, 0.9, 1), 'gamma': (2.0, *EXPONENTS, 8), 'alpha': (None, *ALPHAS)},
    vectors=PER_CLASS,
    settings={
        'cross-entropy': dict(threshold=1.0),
        'another threshold and alpha': dict(threshold=0.3, alpha=0.25, gamma=1.5),
        'gamma 0': dict(gamma=0),
        'below 1': dict(gamma=0.5, threshold=0.9),
        'a steep one': dict(gamma=5),
    },
    point=point,
    formula=formula,
    by_hand=(
        (LN3, 1, math.log(4 / 3) / 4, -(1.5 * math.log(4 / 3) + 0.25) / 4, {}),
        (-LN3, 1, math.log(4), -0.75, {}),
        (1e-30, 1, LN2, -LN2 - 0.5, {}),
        (-1e-30, 1, LN2, -0.5, {}),
    ),
    passes=93,
)
