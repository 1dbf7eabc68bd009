"""Helpers of the eager point functions: exact at y = 0 and y = 1, where 0 * inf would be NaN."""

import torch
from torch import Tensor


def choose(y: Tensor, one: Tensor, zero: Tensor) -> Tensor:
    """The mean y * one + (1 - y) * zero; where y needs no gradient, exactly one or zero at the ends."""
    mixed = y * one + (1 - y) * zero
    if y.requires_grad:
        return mixed
    return torch.where(y == 1, one, torch.where(y == 0, zero, mixed))


def log_choose(y: Tensor, one: Tensor, zero: Tensor, log_one: Tensor, log_zero: Tensor) -> Tensor:
    """log(choose(y, one, zero)), from the logarithms themselves at the ends."""
    mixed = y * one + (1 - y) * zero
    if y.requires_grad:
        return mixed.log()
    soft = torch.where((y == 0) | (y == 1), torch.ones_like(mixed), mixed).log()
    return torch.where(y == 1, log_one, torch.where(y == 0, log_zero, soft))


def power(log_base: Tensor, exponent: Tensor | float) -> Tensor:
    """exp(exponent * log_base), 1 where the exponent is 0 whatever the base."""
    if not isinstance(exponent, Tensor):
        return torch.ones_like(log_base) if exponent == 0 else (exponent * log_base).exp()
    zero = exponent == 0
    # The inner where keeps a NaN of 0 * inf out of the gradient too.
    return torch.where(zero, 1.0, (exponent * torch.where(zero, 0.0, log_base)).exp())
