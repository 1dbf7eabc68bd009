"""mmdet.models.losses.focal_loss's functions."""

from torch import Tensor

from focal_plugin import functional


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """mmdet's sigmoid_focal_loss: the sigmoid focal loss of arXiv 1708.02002, without mmcv's compiled ops.

        loss = alpha_t (1 - p_t)^gamma (-log p_t)

    The arguments are those of :func:`focal_plugin.functional.sigmoid_focal_loss`, in mmdet's order.

    Args:
        pred: logits (N, C), or of any shape; any strides, nothing is copied.
        target: labels (N,), class c in [0, C), background C; dense values in [0, 1] of pred's shape do as well.
        weight: (N,), (N, 1), (N, C) or (N * C,).
        gamma: focusing exponent, at least 0.
        alpha: weight of the positives in [0, 1].
        reduction: 'none', 'mean' (over N * C) or 'sum'.
        avg_factor: what 'mean' divides the sum by instead; a number or a tensor of one element.

    Returns:
        The loss. Reduced, that of half logits is float32.

    Raises:
        ValueError: shapes or values that don't fit, avg_factor with 'sum', on the CPU a label outside [0, C].
        TypeError: a wrong dtype.
    """
    return functional.sigmoid_focal_loss(
        pred, target, weight, gamma=gamma, alpha=alpha, reduction=reduction, avg_factor=avg_factor
    )


def py_sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """mmdet's py_sigmoid_focal_loss: :func:`sigmoid_focal_loss` of a one-hot or soft target of pred's shape.

    A soft target y gives (alpha y + (1 - alpha)(1 - y)) ((1 - p) y + p (1 - y))^gamma times the binary cross-entropy.
    """
    return sigmoid_focal_loss(pred, target, weight, gamma, alpha, reduction, avg_factor)


def py_focal_loss_with_prob(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """mmdet's py_focal_loss_with_prob: :func:`sigmoid_focal_loss` of probabilities instead of logits.

    Logarithms stop at -100, as in torch.nn.functional.binary_cross_entropy; a probability outside [0, 1] is a
    ValueError on the CPU. The target holds labels (N,) or dense values.
    """
    return functional.sigmoid_focal_loss(
        pred, target, weight, gamma=gamma, alpha=alpha, reduction=reduction, avg_factor=avg_factor, activated=True
    )
