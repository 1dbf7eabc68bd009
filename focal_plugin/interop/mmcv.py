"""mmcv.ops' focal losses, without mmcv's compiled ops."""

from __future__ import annotations
from collections.abc import Callable

import torch
from torch import Tensor, nn

from focal_plugin import functional


def _check_shapes(input: Tensor, target: Tensor, weight: Tensor | None) -> None:
    if input.dim() != 2 or target.dim() != 1:
        raise ValueError(
            f'input must have the shape (N, C) and target (N,), got {tuple(input.shape)} and {tuple(target.shape)}'
        )
    classes = input.size(1)
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f'weight must hold one number for each of the {classes} classes, got {tuple(weight.shape)}')


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: str = 'mean',
) -> Tensor:
    """mmcv.ops.sigmoid_focal_loss: the sigmoid focal loss of arXiv 1708.02002 for labels.

        loss = weight[label] alpha_t (1 - p_t)^gamma (-log p_t)

    Args:
        input: logits (N, C) of any floating dtype and strides.
        target: labels (N,), class c in [0, C), background C; an integer dtype.
        gamma: focusing exponent, at least 0.
        alpha: weight of the positives in [0, 1].
        weight: one number per class, (C,), that multiplies the whole row of a label; background rows have 1 (mmcv reads
            past the end of weight there). It gets no gradient, as in mmcv.
        reduction: 'none' (N, C), 'sum', or 'mean': the sum divided by N, not by N * C.

    Returns:
        The loss. Reduced, that of half logits is float32, where mmcv's sum overflows at 65504.

    Raises:
        ValueError: shapes that don't fit, another reduction, on the CPU a label outside [0, C].
        TypeError: a target that is not integer.
    """
    _check_shapes(input, target, weight)
    rows, classes = input.shape
    if weight is not None:
        # A label outside [0, C] must reach the loss, which names it, and not fail as an index.
        weight = torch.cat([weight.detach(), weight.new_ones(1)])[target.long().clamp(0, classes)]
    if reduction != 'mean':
        return functional.sigmoid_focal_loss(input, target, weight, gamma=gamma, alpha=alpha, reduction=reduction)
    total = functional.sigmoid_focal_loss(input, target, weight, gamma=gamma, alpha=alpha, reduction='sum')
    return total / max(rows, 1)


def softmax_focal_loss(
    input: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: str = 'mean',
) -> Tensor:
    """mmcv.ops.softmax_focal_loss: the focal loss of arXiv 1708.02002 for a softmax over the classes.

        loss = alpha weight[label] (1 - p)^gamma (-log p),  p = softmax(input)[label]

    alpha multiplies every row alike. mmcv stops at -log p = 87.3, in half types earlier; this does not.

    Args:
        input: logits (N, C) of any floating dtype and strides.
        target: labels (N,) in [0, C); a background has a class of its own. A negative label gives no loss and no
            gradient. C, which mmcv lets pass and then reads past the row's end, is refused.
        gamma: focusing exponent, at least 0.
        alpha: factor of the loss in [0, 1].
        weight: one number per class, (C,), that multiplies the rows of its label. It gets no gradient, as in mmcv.
        reduction: 'none' (N,), 'sum', or 'mean': the sum divided by N, negative labels included.

    What is returned and what is raised are those of :func:`sigmoid_focal_loss`.
    """
    _check_shapes(input, target, weight)
    target = torch.where(target < 0, -1, target)
    if weight is not None:
        weight = weight.detach()[target.long().clamp(0, input.size(1) - 1)]
    return functional.softmax_focal_loss(
        input, target, weight, gamma=gamma, alpha=alpha, reduction=reduction, ignore_index=-1
    )


class _FocalLoss(nn.Module):
    function: Callable[..., Tensor]
    weight: Tensor | None

    def __init__(self, gamma: float, alpha: float, weight: Tensor | None = None, reduction: str = 'mean'):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha
        self.register_buffer('weight', weight)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (N, C) and labels (N,)."""
        return self.function(input, target, self.gamma, self.alpha, self.weight, self.reduction)

    def extra_repr(self) -> str:
        return f'gamma={self.gamma}, alpha={self.alpha}, reduction={self.reduction}'


class SigmoidFocalLoss(_FocalLoss):
    """mmcv.ops.SigmoidFocalLoss: :func:`sigmoid_focal_loss` as a module, whose weight is a buffer."""

    function = staticmethod(sigmoid_focal_loss)


class SoftmaxFocalLoss(_FocalLoss):
    """mmcv.ops.SoftmaxFocalLoss: :func:`softmax_focal_loss` as a module, whose weight is a buffer."""

    function = staticmethod(softmax_focal_loss)
