"""IoU-aware binary cross-entropy of Align-DETR, arXiv 2304.07527."""

import math

import numpy as np
import torch

from tests.oracle import formulas, long, times
from tests.oracle.points import Sigmoid, background, cross_entropy, either
from tests.variants.variant import FLAGS, GAMMA, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, k, gamma, detach_weight):
    """BCE(p, t) of a positive, t = max(p^k y^(1-k), .01) a constant; p^gamma BCE(p, 0) of a negative."""
    s = Sigmoid(x)
    log_t = times(long(k), s.log_p) + times(long(1 - k), np.log(y))
    floor = log_t < np.log(long(0.01))
    t = np.where(floor, long(0.01), np.exp(log_t))
    rest = np.where(floor, long(0.99), -np.expm1(log_t))
    sure = (k == 0) & (y == 1)
    attracted = cross_entropy(s, t, rest, np.where(sure, 0, np.where(floor, 1, 1 + np.abs(log_t))))
    return either(positive, attracted, background(s, 1, gamma, detach_weight))


def formula(x, y, positive, k, gamma, detach_weight):
    p = formulas.sigmoid(x)
    t = (p**k * y ** (1 - k)).clamp(min=0.01).detach()
    negative = formulas.detached(p**gamma, detach_weight) * formulas.softplus(x)
    return torch.where(positive, formulas.cross_entropy(x, t), negative)


VARIANT = Variant(
    kind='FusedIoUAwareBCELoss',
    function='iou_aware_bce_loss',
    tried={'k': (0.25, 0, 0.5, 0.75, 1), 'gamma': GAMMA, 'detach_weight': FLAGS},
    per_row=True,
    scored=True,
    settings={
        'detached, as Relation-DETR': dict(detach_weight=True),
        'the IoU alone': dict(k=0.0, gamma=0),
        'the prediction alone': dict(k=1.0, gamma=1),
        'any exponents': dict(k=0.75, gamma=1.5),
        'a steep one, detached': dict(gamma=5, detach_weight=True),
    },
    point=point,
    formula=formula,
    by_hand=(
        (0, 0.125, LN2, 0.25, dict(k=0.5)),
        (0, 1e-9, LN2, 0.49, dict(k=0.5)),
        (0, 0, LN2 / 4, LN2 / 4 + 0.125, dict(k=0.5)),
        (0, 0, LN2 / 4, 0.125, dict(k=0.5, detach_weight=True)),
    ),
    detaches=True,
    without_target=dict(k=1.0),
    rounded=lambda arguments: (0, 1) if arguments['k'] > 0 else (),
    passes=112,
)
