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
