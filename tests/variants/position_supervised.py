"""Position-supervised loss of Stable-DINO, arXiv 2304.04742."""

import math

import numpy as np
import torch

from tests.oracle import formulas, long
from tests.oracle.points import Sigmoid, background, either, quality, scaled
from tests.variants.variant import GAMMA, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, alpha, gamma, normalize):
    """alpha |p - t|^gamma BCE(p, t) of a positive, t = y^2 or y^2 / max y^2; (1 - alpha) p^gamma BCE(p, 0) of a negative."""
    s = Sigmoid(x)
    t = y**2
    if normalize == 'batch':
        t = t / (t.max(initial=0) + long(1e-8))
    hard = (t == 0) | (t == 1)
    attracted = quality(s, t, 1 - t, np.where(hard, 0, 1), gamma, eps)
    return either(positive, scaled(alpha, attracted), background(s, 1 - alpha, gamma, False))


def formula(x, y, positive, alpha, gamma, normalize):
    t = y**2
    if normalize == 'batch' and t.numel():
        t = t / (t.max() + 1e-8)
    attracted = alpha * formulas.distance(x, t, gamma) * formulas.cross_entropy(x, t)
    return torch.where(positive, attracted, (1 - alpha) * formulas.sigmoid(x) ** gamma * formulas.softplus(x))


def silent(y, positive, arguments):
    return np.where(positive, arguments['alpha'] == 0, arguments['alpha'] == 1)


VARIANT = Variant(
    kind='FusedPositionSupervisedLoss',
    function='position_supervised_loss',
    tried={'alpha': (0.25, 0, 0.5, 1), 'gamma': GAMMA, 'normalize': ('none', 'none', 'batch')},
    per_row=True,
    scored=True,
    settings={
        'scaled by the batch': dict(normalize='batch'),
        'cross-entropy': dict(gamma=0, alpha=0.5),
        'a pole at p = t': dict(gamma=0.5),
        'negatives silent': dict(alpha=1.0, gamma=1),
        'a steep one': dict(gamma=5, alpha=0.75),
    },
    point=point,
    formula=formula,
    by_hand=((0, 0.5, LN2 / 64, LN2 / 32 + 1 / 256, {}), (0, 0, 3 * LN2 / 16, 3 * (LN2 + 0.5) / 16, {})),
    without_target=dict(gamma=0.0),
    silent=silent,
    rounded=lambda arguments: (0, 1) if arguments['normalize'] == 'batch' else (),
    passes=86,
)
