"""Helpers of the eager point functions. All terms are finite, so that a factor of exactly 0 silences what it multiplies.

y is a bool tensor where every target is 0 or 1 (labels).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from focal_plugin.math.derivatives import log_mix
from focal_plugin.tracing import may_look


def choose(y: Tensor, one: Tensor, zero: Tensor) -> Tensor:
    """The mean y * one + (1 - y) * zero."""
    return torch.where(y, one, zero) if y.dtype == torch.bool else y * one + (1 - y) * zero


def log_choose(y: Tensor, one: Tensor, zero: Tensor, log_one: Tensor, log_zero: Tensor) -> Tensor:
    """log(choose(y, one, zero)), given the two logarithms too."""
    return torch.where(y, log_one, log_zero) if y.dtype == torch.bool else log_mix(y, one, zero, log_one, log_zero)


def _one(base: Tensor) -> Tensor:
    return base - base + 1  # NaN stays NaN


def _recognised(exponent: Tensor | float) -> Tensor | float:
    """An exponent of all elements as a number, if it may be looked at."""
    is_one = isinstance(exponent, Tensor) and exponent.dim() == 0
    return exponent.item() if is_one and not exponent.requires_grad and may_look(exponent) else exponent


def power(base: Tensor, log_base: Callable[[], Tensor], exponent: Tensor | float) -> Tensor:
    """base ** exponent; through the logarithm of the base where the exponent is not 0, 1 or 2."""
    exponent = _recognised(exponent)
    if not isinstance(exponent, Tensor):
        direct = {0.0: _one, 1.0: torch.clone, 2.0: torch.square}.get(exponent)
        return (exponent * log_base()).exp() if direct is None else direct(base)
    zero = exponent == 0
    if may_look(zero) and not zero.any():
        return (exponent * log_base()).exp()
    # The inner where keeps a NaN of 0 * inf out of the gradient too.
    return torch.where(zero, _one(base), (exponent * torch.where(zero, 0.0, log_base())).exp())


def power_of(base: Tensor, exponent: Tensor | float) -> Tensor:
    """base ** exponent of a base in [0, 1], with gradient 0 where the base is 0."""
    tiny, seen = torch.finfo(base.dtype).tiny, base.detach()
    if may_look(seen) and seen.numel() > 0 and seen.amin() >= tiny:
        return power(base, base.log, exponent)
    zero = base < tiny
    inside = torch.where(zero, 1.0, base)
    power_of_zero = (torch.as_tensor(exponent, dtype=base.dtype, device=base.device) == 0).to(base.dtype)
    return torch.where(zero, power_of_zero, power(inside, inside.log, exponent))


def distance_power(y: Tensor, p: Tensor, q: Tensor, exponent: Tensor | float) -> Tensor:
    """|y - p| ** exponent, with gradient 0 where y = p."""
    return power_of(choose(y, q, -p).abs(), exponent)


def modulated_focal(p, q, log_p, log_q, y, gamma) -> tuple[Tensor, Tensor, Tensor]:
    """(1 - p_t, (1 - p_t) ** gamma, log p_t)."""
    one_minus_pt = choose(y, q, p)
    modulating = power(one_minus_pt, lambda: log_choose(y, q, p, log_q, log_p), gamma)
    return one_minus_pt, modulating, choose(y, log_p, log_q)


def detached(factor: Tensor, flag: Tensor) -> Tensor:
    """The factor, without its gradient where flag is 1."""
    return flag * factor.detach() + (1 - flag) * factor
