"""Helpers of the eager point functions: exact at y = 0 and y = 1, where 0 * inf would be NaN.

y is a bool tensor where every target is 0 or 1 (labels).
"""

from collections.abc import Callable

import torch
from torch import Tensor


def choose(y: Tensor, one: Tensor, zero: Tensor) -> Tensor:
    """The mean y * one + (1 - y) * zero; where y needs no gradient, exactly one or zero at the ends."""
    if y.dtype == torch.bool:
        return torch.where(y, one, zero)
    mixed = y * one + (1 - y) * zero
    if y.requires_grad:
        return mixed
    return torch.where(y == 1, one, torch.where(y == 0, zero, mixed))


def log_choose(y: Tensor, one: Tensor, zero: Tensor, log_one: Tensor, log_zero: Tensor) -> Tensor:
    """log(choose(y, one, zero)), from the logarithms themselves at the ends."""
    if y.dtype == torch.bool:
        return torch.where(y, log_one, log_zero)
    mixed = y * one + (1 - y) * zero
    if y.requires_grad:
        return mixed.log()
    soft = torch.where((y == 0) | (y == 1), torch.ones_like(mixed), mixed).log()
    return torch.where(y == 1, log_one, torch.where(y == 0, log_zero, soft))


def power(base: Tensor, log_base: Callable[[], Tensor], exponent: Tensor | float) -> Tensor:
    """base ** exponent; through the logarithm of the base where the exponent is not 0, 1 or 2."""
    if not isinstance(exponent, Tensor):
        direct = {0.0: torch.ones_like, 1.0: torch.clone, 2.0: torch.square}.get(exponent)
        return (exponent * log_base()).exp() if direct is None else direct(base)
    zero = exponent == 0
    # The inner where keeps a NaN of 0 * inf out of the gradient too.
    return torch.where(zero, 1.0, (exponent * torch.where(zero, 0.0, log_base())).exp())


def power_of(base: Tensor, exponent: Tensor | float) -> Tensor:
    """base ** exponent of a base in [0, 1], with gradient 0 where the base is 0."""
    zero = base < torch.finfo(base.dtype).tiny
    inside = torch.where(zero, 1.0, base)
    power_of_zero = (torch.as_tensor(exponent, dtype=base.dtype, device=base.device) == 0).to(base.dtype)
    return torch.where(zero, power_of_zero, power(inside, inside.log, exponent))


def distance_power(y: Tensor, p: Tensor, q: Tensor, exponent: Tensor | float) -> Tensor:
    """|y - p| ** exponent, with gradient 0 where y = p."""
    return power_of(choose(y, q, -p).abs(), exponent)


def modulated_focal(p, q, log_p, log_q, y, gamma) -> tuple[Tensor, Tensor, Tensor]:
    """(1 - p_t, (1 - p_t) ** gamma, cross-entropy)."""
    wrong = choose(y, q, p)
    modulating = power(wrong, lambda: log_choose(y, q, p, log_q, log_p), gamma)
    return wrong, modulating, -choose(y, log_p, log_q)


def detached(factor: Tensor, flag: Tensor) -> Tensor:
    """The factor, without its gradient where flag is 1."""
    return flag * factor.detach() + (1 - flag) * factor
