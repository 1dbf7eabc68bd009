"""Quality focal loss. Li et al., Generalized Focal Loss, arXiv 2006.04388."""

from __future__ import annotations  # tl.constexpr stays a string: importing this module must not import Triton

from focal_plugin.lazy import prim, tl
from focal_plugin.math.eager import cross_entropy, distance_power
from focal_plugin.math.spec import Parameter, Spec


def pack(beta):
    return (beta,)


def value(x, p, q, log_p, log_q, y, is_positive, beta):
    return distance_power(x, p, q, y, beta) * cross_entropy(x, p, q, log_p, log_q, y)


def value_and_grad(
    x, p, q, log_p, log_q, y, is_positive, beta, EXPONENT: tl.constexpr, HARD: tl.constexpr
):  # fmt: skip
    return prim.quality(p, q, log_p, log_q, y, is_positive, beta, EXPONENT, HARD)


SPEC = Spec(
    name='quality_focal',
    title='Quality focal loss of `Generalized Focal Loss`, with y the quality (IoU) of a positive, 0 elsewhere',
    paper='2006.04388',
    formula='|y - p|^beta BCE(p, y)',
    parameters=(Parameter('beta', 2.0, 'Exponent of the modulating factor'),),
    pack=pack,
    value=value,
    value_and_grad=value_and_grad,
    form='scored',
    scored=True,
    per_row=True,
    probabilities='activated',
)
