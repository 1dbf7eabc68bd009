"""Gaussian focal loss of heatmaps. Law and Deng, CornerNet, arXiv 1808.01244."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton

import torch

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import power_by_base
from focal_plugin.math.spec import Parameter, Spec


def pack(alpha, gamma, pos_weight, neg_weight):
    return alpha, gamma, pos_weight, neg_weight


def value(x, p, q, log_p, log_q, y, is_positive, alpha, gamma, pos_weight, neg_weight):
    centre = y if y.dtype == torch.bool else y == 1
    # Powers of p and q themselves: their logarithms may hold an epsilon.
    positive = pos_weight * power_by_base(q, alpha) * -log_p
    negative = neg_weight * power_by_base(1 - y.to(p.dtype), gamma) * power_by_base(p, alpha) * -log_q
    return torch.where(centre, positive, negative)


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, alpha, gamma, pos_weight, neg_weight,
    EXPONENT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    centre = y == 1
    weight = tl.where(centre, pos_weight, neg_weight)
    if not HARD:
        # Off the centre 1 - y has a finite logarithm, so that the power of 0 is 1 and a NaN stays.
        weight *= tl.where(centre, 1.0, prim.exp2(gamma * prim.log2(1 - y)))
    one_minus_pt = tl.where(centre, q, p)
    base = one_minus_pt
    if EXPONENT != 2 and EXPONENT != 4:
        # What stands for a probability of 0 is 0 again, as its square is: the logarithm, which holds an epsilon, is -27.6,
        # that of a logit's below -69.
        base = tl.where((base <= 1e-30) & (tl.where(centre, log_q, log_p) > -60), 0.0, base)
    # Not from that logarithm.
    modulated = weight * prim.power_by_base(base, alpha, EXPONENT)
    cross_entropy = -tl.where(centre, log_p, log_q)
    signed = tl.where(centre, -modulated, modulated)
    return modulated * cross_entropy, signed * (alpha * tl.where(centre, p, q) * cross_entropy + one_minus_pt)


def of_named_positives(loss, pred, target, pos_inds, pos_labels, reduction):
    """loss(pred, target) of positives that are named, plus loss(pred, target, pos_weight=0.0) of all."""
    if reduction == 'none':
        raise ValueError("pos_inds can't be used with reduction='none': write 'mean' or 'sum'")
    positives = pred[pos_inds, pos_labels]
    return loss(positives, torch.ones_like(positives)) + loss(pred, target, pos_weight=0.0)


SPEC = Spec(
    name='gaussian_focal',
    title='Gaussian focal loss of `CornerNet`, with y a heatmap that is 1 at the objects and falls off around them',
    paper='1808.01244',
    formula='q^alpha (-log p) where y = 1;  (1 - y)^gamma p^alpha (-log q) elsewhere',
    parameters=(
        Parameter('alpha', 2.0, 'Focusing exponent'),
        Parameter('gamma', 4.0, 'Exponent that spares the surroundings of an object'),
        Parameter('pos_weight', 1.0, 'Weight of the objects'),
        Parameter('neg_weight', 1.0, 'Weight of everything else'),
    ),
    pack=pack,
    factors=(2, 3),
    value=value,
    value_and_grad=value_and_grad,
    form='dense',
    probabilities='from_logits',
    probability_epsilon=1e-12,
)
