"""Helpers of the eager point functions. All terms are finite, so that a factor of exactly 0 silences what it multiplies.

y is a bool tensor where every target is 0 or 1 (labels). x is None where p is no logit's.
"""

from __future__ import annotations
from collections.abc import Callable

import torch
from torch import Tensor

from focal_plugin.math.derivatives import (
    cross_entropy_of_logit,
    cross_entropy_of_probability,
    log_soft_one_minus_pt,
    residual,
    soft_one_minus_pt,
)
from focal_plugin.tracing import may_look


def choose(y: Tensor, one: Tensor, zero: Tensor) -> Tensor:
    """The mean y * one + (1 - y) * zero."""
    return torch.where(y, one, zero) if y.dtype == torch.bool else y * one + (1 - y) * zero


def one_minus_pt_of(p: Tensor, q: Tensor, y: Tensor) -> Tensor:
    """1 - p_t."""
    return torch.where(y, q, p) if y.dtype == torch.bool else soft_one_minus_pt(p, q, y)


def log_one_minus_pt_of(p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """log(1 - p_t)."""
    return torch.where(y, log_q, log_p) if y.dtype == torch.bool else log_soft_one_minus_pt(p, q, log_p, log_q, y)


def cross_entropy(x: Tensor | None, p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """-y log p - (1 - y) log q."""
    if y.dtype == torch.bool:
        return -torch.where(y, log_p, log_q)
    if x is None:
        return cross_entropy_of_probability(p, y, q, log_p, log_q)
    return cross_entropy_of_logit(x, y, p, q, log_p, log_q)


def log_of_target(x: Tensor | None, p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """y log p + (1 - y) log q: log p_t where y is hard."""
    return torch.where(y, log_p, log_q) if y.dtype == torch.bool else -cross_entropy(x, p, q, log_p, log_q, y)


def above(x: Tensor | None, p: Tensor, q: Tensor, y: Tensor) -> Tensor:
    """p - y."""
    if y.dtype == torch.bool:
        return torch.where(y, -q, p)
    return p - y if x is None else residual(x, y, p, q)


def _one(base: Tensor) -> Tensor:
    return base - base + 1  # NaN stays NaN


_DIRECT: dict[float, Callable[[Tensor], Tensor]] = {0.0: _one, 1.0: torch.clone, 2.0: torch.square}


def _recognised(exponent: Tensor | float) -> Tensor | float:
    """An exponent of all elements as a number, if it may be looked at."""
    if isinstance(exponent, Tensor) and exponent.dim() == 0 and not exponent.requires_grad and may_look(exponent):
        return exponent.item()
    return exponent


def power(base: Tensor, log_base: Callable[[], Tensor], exponent: Tensor | float) -> Tensor:
    """base ** exponent; through the logarithm of the base where the exponent is not 0, 1 or 2."""
    exponent = _recognised(exponent)
    if not isinstance(exponent, Tensor):
        direct = _DIRECT.get(exponent)
        return (exponent * log_base()).exp() if direct is None else direct(base)
    zero = exponent == 0
    if may_look(zero) and not zero.any():
        return (exponent * log_base()).exp()
    # The inner where keeps a NaN of 0 * inf out of the gradient too.
    return torch.where(zero, _one(base), (exponent * torch.where(zero, 0.0, log_base())).exp())


def power_by_base(base: Tensor, exponent: Tensor | float) -> Tensor:
    """base ** exponent of a base in [0, 1], with gradient 0 where the base is 0, unless the exponent is 1."""
    exponent = _recognised(exponent)
    tiny, seen = torch.finfo(base.dtype).tiny, base.detach()
    if may_look(seen) and seen.numel() > 0 and seen.amin() >= tiny:
        return power(base, base.log, exponent)
    zero = base < tiny
    inside = torch.where(zero, 1.0, base)
    # A number made a tensor would be copied to a GPU, which would wait.
    power_of_zero: Tensor | float
    if isinstance(exponent, Tensor):
        power_of_zero = torch.where(exponent == 1, base, (exponent == 0).to(base.dtype))
    else:
        power_of_zero = base if exponent == 1 else float(exponent == 0)
    return torch.where(zero, power_of_zero, power(inside, inside.log, exponent))


def distance_power(x, p, q, y, exponent: Tensor | float) -> Tensor:
    """|y - p| ** exponent, with gradient 0 where y = p."""
    return power_by_base(above(x, p, q, y).abs(), exponent)


def modulated_focal(x, p, q, log_p, log_q, y, gamma) -> tuple[Tensor, Tensor, Tensor]:
    """(1 - p_t, (1 - p_t) ** gamma, log p_t)."""
    one_minus_pt = one_minus_pt_of(p, q, y)
    modulating = power(one_minus_pt, lambda: log_one_minus_pt_of(p, q, log_p, log_q, y), gamma)
    return one_minus_pt, modulating, log_of_target(x, p, q, log_p, log_q, y)


def detached(factor: Tensor, flag: Tensor) -> Tensor:
    """The factor, without its gradient where flag is 1."""
    return flag * factor.detach() + (1 - flag) * factor
