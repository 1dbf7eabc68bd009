"""What the definitions of the variants are written with: formulas in float64 that autograd differentiates.

For logits of ordinary size, where nothing saturates: the exponentials stand as they are, and autograd does the rest.
"""

import torch
from torch import Tensor


def softplus(z: Tensor) -> Tensor:
    return torch.log1p(torch.exp(z))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def alpha_t(alpha, y):
    return 1.0 if alpha is None else alpha * y + (1 - alpha) * (1 - y)


def one_minus_pt(x: Tensor, y) -> Tensor:
    return y * sigmoid(-x) + (1 - y) * sigmoid(x)


def cross_entropy(x: Tensor, t) -> Tensor:
    return t * softplus(-x) + (1 - t) * softplus(x)


def focal(x: Tensor, y, gamma, alpha) -> Tensor:
    return alpha_t(alpha, y) * one_minus_pt(x, y) ** gamma * cross_entropy(x, y)


def distance(x: Tensor, t, exponent) -> Tensor:
    """|t - p| ^ exponent, a constant 0 where t = p."""
    difference = t * sigmoid(-x) - (1 - t) * sigmoid(x)  # t - p
    met = difference == 0
    return torch.where(met, 0.0**exponent, torch.where(met, 1.0, difference).abs() ** exponent)


def detached(factor: Tensor, flag: bool) -> Tensor:
    return factor.detach() if flag else factor
