"""Matchability-aware loss of DEIM, arXiv 2412.04234."""

import math

import numpy as np
import torch

from tests.oracle import formulas, long, times
from tests.oracle.points import Sigmoid, background, cross_entropy, either, rounding_of_power
from tests.variants.variant import EXPONENTS, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, gamma, mal_alpha):
    """BCE(p, y^gamma) of a positive, mal_alpha p^gamma BCE(p, 0) of a negative, p^gamma a constant."""
    s = Sigmoid(x)
    log_t = times(long(gamma), np.log(y))
    attracted = cross_entropy(s, np.exp(log_t), -np.expm1(log_t), rounding_of_power(log_t, y))
    return either(positive, attracted, background(s, mal_alpha, gamma, True))


def formula(x, y, positive, gamma, mal_alpha):
    attracted = formulas.cross_entropy(x, torch.where(positive, y, 1.0) ** gamma)
    modulating = (formulas.sigmoid(x) ** gamma).detach()
    return torch.where(positive, attracted, mal_alpha * modulating * formulas.softplus(x))


VARIANT = Variant(
    kind='FusedMatchabilityAwareLoss',
    function='matchability_aware_loss',
    tried={'gamma': (1.5, *EXPONENTS), 'mal_alpha': (1.0, 0, 0.5, 2)},
    per_row=True,
    scored=True,
    settings={
        'every positive 1': dict(gamma=0, mal_alpha=0.5),
        'the IoU itself': dict(gamma=1),
        'below 1': dict(gamma=0.5, mal_alpha=2.0),
        'a steep one, negatives silent': dict(gamma=5, mal_alpha=0.0),
    },
    point=point,
    formula=formula,
    by_hand=((0, 0.25, LN2, 0.375, {}), (0, 0, LN2 / 8, 0.0625, dict(gamma=2, mal_alpha=0.5))),
    detaches=True,
    without_target=dict(gamma=0.0),
    passes=72,
)
