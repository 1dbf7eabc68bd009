"""Position-supervised loss. Liu et al., Detection Transformer with Stable Matching, arXiv 2304.04742."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton
from dataclasses import replace

import torch

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import cross_entropy, distance_power
from focal_plugin.math.spec import ALPHA, GAMMA, Parameter, Spec


def pack(alpha, gamma, normalize):
    return gamma, alpha, 1 - alpha


def prepare(pred, target, score, weight, ignore_index, alpha, gamma, normalize):
    """Divides the qualities so that the largest t of the batch is 1; with labels those of the positives that count."""
    if normalize == 'none' or pred.numel() == 0:
        return target, score, weight
    dtype = torch.promote_types(pred.dtype, torch.float32)
    if target.dim() == pred.dim():
        return _normalized(target.to(dtype)), score, weight
    counts = (target >= 0) & (target < pred.size(-1))
    if ignore_index is not None:
        counts &= target != ignore_index
    score = counts.to(dtype) if score is None else torch.where(counts, score.to(dtype), 0)
    return target, _normalized(score), weight


def _normalized(quality):
    return torch.where(quality == 0, 0, quality / (quality.max().square() + 1e-8).sqrt())  # a NaN reaches no negative


def value(x, p, q, log_p, log_q, y, is_positive, gamma, alpha_positive, alpha_negative):
    t = y if y.dtype == torch.bool else y.square()
    alpha = torch.where(is_positive, alpha_positive, alpha_negative)
    return alpha * distance_power(x, p, q, t, gamma) * cross_entropy(x, p, q, log_p, log_q, t)


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, gamma, alpha_positive, alpha_negative,
    EXPONENT: tl.constexpr, HARD: tl.constexpr,
):  # fmt: skip
    value, derivative = prim.quality(p, q, log_p, log_q, y * y, is_positive, gamma, EXPONENT, HARD)
    alpha = tl.where(is_positive, alpha_positive, alpha_negative)
    return alpha * value, alpha * derivative


SPEC = Spec(
    name='position_supervised',
    title='Position-supervised loss of `Detection Transformer with Stable Matching`, with y the quality (IoU) of a positive',
    paper='2304.04742',
    formula='alpha |t - p|^gamma BCE(p, t), t = y^2 for a positive;  (1 - alpha) p^gamma (-log q) for a negative',
    parameters=(
        replace(ALPHA, vector=False, optional=False),
        replace(GAMMA, vector=False),
        Parameter(
            'normalize',
            'none',
            "What t is divided by: for 'batch' its maximum over all rows + 1e-8 (the paper's code takes each image's, but a "
            'loss sees flat rows)',
            choices=('none', 'batch'),
        ),
    ),
    pack=pack,
    factors=(1, 2),
    value=value,
    value_and_grad=value_and_grad,
    form='scored',
    scored=True,
    per_row=True,
    prepare=prepare,
)
