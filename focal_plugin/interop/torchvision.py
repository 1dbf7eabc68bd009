"""torchvision.ops' focal loss."""

import torch

from focal_plugin.interop import dense


def sigmoid_focal_loss(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = 'none',
) -> torch.Tensor:
    """torchvision.ops.sigmoid_focal_loss: the sigmoid focal loss of arXiv 1708.02002 for dense targets.

        loss = alpha_t (1 - p_t)^gamma (-log p_t),  p_t = p targets + (1 - p)(1 - targets),  p = sigmoid(inputs)

    Args:
        inputs: logits of any shape and floating dtype.
        targets: values in [0, 1] of the same shape.
        alpha: weight of the positives in [0, 1]; negative: no weight.
        gamma: focusing exponent, at least 0.
        reduction: 'none', 'mean' (over the elements) or 'sum'.

    Returns:
        The loss in the dtype of inputs, also where it is reduced; sums are taken in float32. torch.jit.script takes it.

    Raises:
        ValueError: shapes that differ, gamma < 0, alpha > 1, or another reduction.
    """
    return dense.sigmoid_focal_loss(inputs, targets, alpha, gamma, reduction).to(inputs.dtype)
