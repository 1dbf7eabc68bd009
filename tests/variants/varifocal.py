"""Varifocal loss, arXiv 2008.13367."""

import math

import numpy as np
import torch

from tests.oracle import formulas
from tests.oracle.points import Sigmoid, background, cross_entropy, either
from tests.variants.variant import FLAGS, GAMMA, Variant

LN2 = math.log(2)


def point(x, y, positive, eps, alpha, gamma, iou_weighted, detach_weight):
    """y BCE(p, y) where y > 0, without iou_weighted BCE(p, y); alpha p^gamma BCE(p, 0) elsewhere, labels of score 0 too."""
    s = Sigmoid(x)
    weight = y if iou_weighted else np.ones_like(y)
    return either(y > 0, cross_entropy(s, y, 1 - y, 0.0, weight), background(s, alpha, gamma, detach_weight))


def formula(x, y, positive, alpha, gamma, iou_weighted, detach_weight):
    negative = alpha * formulas.detached(formulas.sigmoid(x) ** gamma, detach_weight) * formulas.softplus(x)
    return torch.where(y > 0, (y if iou_weighted else 1.0) * formulas.cross_entropy(x, y), negative)


VARIANT = Variant(
    kind='FusedVarifocalLoss',
    function='varifocal_loss',
    tried={'alpha': (0.75, 0, 0.25, 1, 2.0), 'gamma': GAMMA, 'iou_weighted': (True, False), 'detach_weight': FLAGS},
    scored=True,
    settings={
        'positives all alike': dict(iou_weighted=False),
        'detached, as RT-DETR': dict(detach_weight=True),
        'cross-entropy': dict(gamma=0, alpha=1),
        'below 1, detached': dict(gamma=0.5, detach_weight=True),
        "a steep one, RetinaNet's alpha": dict(gamma=5, alpha=0.25),
    },
    point=point,
    formula=formula,
    by_hand=(
        (0, 0.75, 0.75 * LN2, -0.1875, {}),
        (0, 0.75, LN2, -0.25, dict(iou_weighted=False)),
        (0, 0, 0.1875 * LN2, 0.1875 * (LN2 + 0.5), {}),
        (0, 0, 0.1875 * LN2, 0.09375, dict(detach_weight=True)),
    ),
    without_target=dict(gamma=0.0),
    passes=90,
)
