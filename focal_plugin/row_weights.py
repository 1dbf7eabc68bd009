"""Factors of whole rows by their labels."""

from __future__ import annotations

import torch
from torch import Tensor


def times(pred: Tensor, labels: Tensor, factors: Tensor, weight: Tensor | None) -> Tensor:
    """A weight times the factor of each row's label.

    Args:
        pred: logits (..., C); only its shape, dtype and device are read.
        labels: int64 (...), background C. One outside [0, C] stays for the loss to refuse: here it counts as the nearest.
        factors: (C,), the background's being 1, or (C + 1,) with the background's last.
        weight: a view of pred's shape, or None.

    Returns:
        A view of pred's shape, of which a row is one number wherever a row of a weight without a gradient is one.
    """
    classes = pred.size(-1)
    factors = factors.to(pred.device, torch.promote_types(pred.dtype, torch.float32))
    if factors.numel() == classes:
        factors = torch.cat([factors, factors.new_ones(1)])
    factor = factors[labels.clamp(0, classes)].unsqueeze(-1)
    if weight is not None:
        # What is read of a weight gets its gradient, which is one per element, also where its memory is one per row.
        is_row = weight.stride(-1) == 0 and not weight.requires_grad
        factor = factor * (weight[..., :1] if is_row else weight)
    return factor.expand(pred.shape)
