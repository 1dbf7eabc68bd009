"""The functions of mmdet.models.losses: those of focal_loss, gfocal_loss, varifocal_loss and gaussian_focal_loss."""

from __future__ import annotations
from functools import partial

from torch import Tensor

from focal_plugin import functional
from focal_plugin.axes import classes_last, spread
from focal_plugin.math.gaussian_focal import of_named_positives


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
        target: labels (N,), class c in [0, C), background C; or dense values y in [0, 1] of pred's shape, whose loss is
            (alpha y + (1 - alpha)(1 - y)) ((1 - p) y + p (1 - y))^gamma times the binary cross-entropy.
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


py_sigmoid_focal_loss = sigmoid_focal_loss
"""mmdet's py_sigmoid_focal_loss, which takes one-hot or soft targets of pred's shape."""


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


def quality_focal_loss(
    pred: Tensor,
    target: tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    *,
    beta: float = 2.0,
) -> Tensor:
    """mmdet's quality_focal_loss: arXiv 2006.04388, for labels with a quality each.

        loss = the sum over the classes of |y - p|^beta BCE(p, y),  y the score at the label's class, else 0

    Args:
        pred: logits (N, C), or (N, C, ...): as in mmdet the classes are dimension 1, which is summed.
        target: the pair of labels (N, ...), background C (to mmdet also anything else outside [0, C), here an error), and
            scores (N, ...) in [0, 1].
        weight: one per row, (N, ...), where a size may be 1; or of pred's shape.
        reduction: 'none' (N, ...), 'mean' (over the rows) or 'sum'.
        beta: focusing exponent, at least 0.

    avg_factor, what is returned and what is raised are those of :func:`sigmoid_focal_loss`.
    """
    return functional.quality_focal_loss(
        *classes_last(pred, target, weight), beta=beta, reduction=reduction, avg_factor=avg_factor
    )


def quality_focal_loss_tensor_target(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    *,
    beta: float = 2.0,
    activated: bool = False,
) -> Tensor:
    """mmdet's quality_focal_loss_tensor_target: :func:`quality_focal_loss` of a dense target of pred's shape.

    With activated, pred holds probabilities.
    """
    return functional.quality_focal_loss(
        *classes_last(pred, target, weight), beta=beta, reduction=reduction, avg_factor=avg_factor, activated=activated
    )


def quality_focal_loss_with_prob(
    pred: Tensor,
    target: tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    *,
    beta: float = 2.0,
) -> Tensor:
    """mmdet's quality_focal_loss_with_prob: :func:`quality_focal_loss` of probabilities instead of logits."""
    return functional.quality_focal_loss(
        *classes_last(pred, target, weight), beta=beta, reduction=reduction, avg_factor=avg_factor, activated=True
    )


def varifocal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """mmdet's varifocal_loss: arXiv 2008.13367, for dense qualities.

        loss = y BCE(p, y) where y > 0 (BCE alone without iou_weighted), else alpha p^gamma BCE(p, y)

    Args:
        pred: logits (N, C), or of any shape.
        target: qualities in [0, 1] of pred's shape.
        weight: (N,), (N, 1), (N, C) or (N * C,), or with pred's number of dimensions, of size 1 or pred's each; with N = C
            mmdet takes (N,) for one number per class.
        alpha: weight of the negatives, at least 0.
        gamma: focusing exponent of the negatives, at least 0.
        iou_weighted: whether positives are weighted with their quality.

    reduction, avg_factor, what is returned and what is raised are those of :func:`sigmoid_focal_loss`.
    """
    return functional.varifocal_loss(
        pred,
        target,
        spread(pred, weight),
        alpha=alpha,
        gamma=gamma,
        iou_weighted=iou_weighted,
        reduction=reduction,
        avg_factor=avg_factor,
    )


def gaussian_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    *,
    alpha: float = 2.0,
    gamma: float = 4.0,
    pos_weight: float = 1.0,
    neg_weight: float = 1.0,
) -> Tensor:
    """mmdet's gaussian_focal_loss: arXiv 1808.01244, for heatmaps.

        loss = -pos_weight (1 - p)^alpha log p where y = 1, else -neg_weight (1 - y)^gamma p^alpha log(1 - p)

    Args:
        pred: probabilities of any shape; as in mmdet 1e-12 is added inside the logarithms.
        target: heatmap in [0, 1] of pred's shape, 1 at an object's centre.
        weight: one per row, or with pred's number of dimensions, of size 1 or pred's each.
        alpha: exponent of the prediction, at least 0.
        gamma: exponent of the target, at least 0.
        pos_weight, neg_weight: factors of the two kinds.

    reduction, avg_factor, what is returned and what is raised are those of :func:`sigmoid_focal_loss`. Of probabilities in
    float16 the loss is finite, where mmdet's is inf.
    """
    return functional.gaussian_focal_loss(
        pred,
        target,
        spread(pred, weight),
        alpha=alpha,
        gamma=gamma,
        pos_weight=pos_weight,
        neg_weight=neg_weight,
        reduction=reduction,
        avg_factor=avg_factor,
    )


def gaussian_focal_loss_with_pos_inds(
    pred: Tensor,
    gaussian_target: Tensor,
    pos_inds: Tensor,
    pos_labels: Tensor,
    alpha: float = 2.0,
    gamma: float = 4.0,
    pos_weight: float = 1.0,
    neg_weight: float = 1.0,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """mmdet's gaussian_focal_loss_with_pos_inds: :func:`gaussian_focal_loss` with the positives named.

    Args:
        pred: probabilities (N, C).
        gaussian_target: heatmap of pred's shape, for the negatives.
        pos_inds: rows of the positives (M,).
        pos_labels: their classes (M,).
        reduction: 'mean' (that of the M positives plus that of all N * C elements as negatives) or 'sum'.

    The other arguments are those of :func:`gaussian_focal_loss`.

    Raises:
        ValueError: reduction 'none' too: mmdet adds (M, 1) and (N, C) there.
    """

    loss = partial(
        gaussian_focal_loss,
        reduction=reduction,
        avg_factor=avg_factor,
        alpha=alpha,
        gamma=gamma,
        pos_weight=pos_weight,
        neg_weight=neg_weight,
    )
    return of_named_positives(loss, pred, gaussian_target, pos_inds, pos_labels, reduction)
