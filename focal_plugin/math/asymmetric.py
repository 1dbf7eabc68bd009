"""Asymmetric loss. Ridnik et al., Asymmetric Loss For Multi-Label Classification, arXiv 2009.14119."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton

import torch

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import above, choose, detached, power
from focal_plugin.math.spec import Parameter, Spec
from focal_plugin.tracing import may_look


def pack(gamma_pos, gamma_neg, clip, detach_weight):
    return gamma_neg, gamma_pos, clip, float(detach_weight)


def value(x, p, q, log_p, log_q, y, is_positive, gamma_neg, gamma_pos, clip, detach_weight):
    positive = detached(power(q, lambda: log_q, gamma_pos), detach_weight) * -log_p
    over = above(x, p, q, clip)
    inside = over > 0
    # Numbers for the elements that another branch serves, away from the infinite slopes at 0.
    shifted = torch.where(inside, over, 0.5)
    log_shifted_q = torch.where(
        shifted < 0.5, torch.log1p(-shifted.clamp(max=0.5)), (q + torch.where(clip == 0, 1.0, clip)).log()
    )
    if not (may_look(clip) and (clip != 0).all()):
        log_shifted_q = torch.where(clip == 0, log_q, log_shifted_q)
    negative = detached(power(shifted, shifted.log, gamma_neg), detach_weight) * -log_shifted_q
    return choose(y, positive, torch.where(inside, negative, p * 0.0))


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma_neg, gamma_pos, clip, detach_weight,
    EXPONENT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    keep = 1 - detach_weight
    # 1. positives
    positive = prim.power_by_log(log_q, gamma_pos)
    positive_slope = -positive * (keep * gamma_pos * p * -log_p + q)
    # 2. negatives, of the shifted probability s = max(p - clip, 0)
    shifted, complement = tl.maximum(p - clip, 0.0, propagate_nan=tl.PropagateNan.ALL), q + clip
    # clip = 0 leaves p: of large logits -log(1 - p) is the logit, where 1 - p has underflowed too
    is_large = x > tl.where(clip == 0, 30.0, float('inf'))
    loss = tl.where(is_large, x, prim.minus_log_of_complement(shifted, complement))
    modulating = prim.power_by_base(shifted, gamma_neg, EXPONENT)
    through = keep * gamma_neg * prim.power_less_one(shifted, modulating, EXPONENT) * loss
    d_loss = tl.where(is_large, 1.0, q * prim.reciprocal(complement))
    slope = p * (q * through + modulating * d_loss)
    if EXPONENT < 1:  # 0, or any: then s = 0 has a power of 1
        slope = tl.where(shifted > 0, slope, shifted)
    negative = modulating * loss
    value = prim.choose(y, is_positive, positive * -log_p, negative, HARD)
    return value, prim.choose(y, is_positive, positive_slope, slope, HARD)


SPEC = Spec(
    name='asymmetric',
    title='Asymmetric loss of `Asymmetric Loss For Multi-Label Classification`',
    paper='2009.14119',
    formula='q^gamma_pos (-log p) for a positive;  s^gamma_neg (-log(1 - s)), s = max(p - clip, 0) for a negative',
    parameters=(
        Parameter('gamma_pos', 1.0, "Focusing exponent of positives, 1 in the authors' code, 0 in the paper"),
        Parameter('gamma_neg', 4.0, 'Focusing exponent of negatives'),
        Parameter('clip', 0.05, 'Probability below which a negative gives no loss', high=0.999),
        Parameter(
            'detach_weight',
            False,
            "Whether the modulating factors get no gradient; the authors' code does so by default",
        ),
    ),
    pack=pack,
    value=value,
    value_and_grad=value_and_grad,
)
