"""One public function for each variant, made from its spec: FUNCTIONS, and each under its own name in this module.

Written by python -m tools.maintain.stubs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from focal_plugin.kernels.problem import Problem
from focal_plugin.math import Spec

MASKS: Spec
FUNCTIONS: dict[str, Callable[..., Tensor]]

def apply(
    spec: Spec, parameters: Mapping[str, Any], pred: Tensor, target, weight=None, *, statistics=None, **given
) -> Tensor:
    """Runs a variant; the arguments are those of problem_of.

    Args:
        statistics: (2, C) float64, to which the backward adds, class by class, the sums of the absolute gradients of
            positives and of negatives, without the upstream gradient.
    """

def problem_of(
    spec: Spec,
    parameters: Mapping[str, Any],
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    *,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
    activated: bool = False,
    loss_weight: float = 1.0,
    channel: Tensor | None = None,
) -> Problem:
    """What a variant is to compute: checks and canonical forms, the factor of the reduction, the backend.

    Args:
        spec: the variant.
        parameters: its public arguments, checked.
        pred: logits, canonical.
        activated: pred holds probabilities.
        loss_weight: a factor that is folded into the kernel.
        channel: of pred (n, channels, P) only this channel of each row is read, int64 (n,); the target is then (n, P).

    The other arguments are those of the public functions.
    """

def prepare(
    by_spec: Callable, parameters: Mapping[str, Any], pred: Any, target: Tensor, score, weight, ignore_index
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What a spec makes of targets and weights; of targets in [0, 1], where it makes others of them.

    pred may stand for logits: its shape and dtype are asked for.
    """

def packed(spec: Spec, arguments_of_spec: Mapping[str, Any], pred: Tensor) -> tuple[list[float], Tensor | None]:
    """What the point functions take: numbers; or with a vector among them, all as one (parameters, C) tensor."""

def mask_focal_loss(
    pred: Tensor,
    target: Tensor,
    labels: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    activated: bool = False,
) -> Tensor:
    """Sigmoid focal loss of masks, arXiv 1708.02002: one number per instance, the mean over its pixels.

    Args:
        pred: logits (n, C, H, W) or (n, C, P), of which only the channel of each instance's label is read, where it lies,
            and the others get a gradient of zero; or (n, H, W) or (n, P), one mask an instance; float64, float32, float16
            or bfloat16.
        target: masks (n, H, W) or (n, P), values in [0, 1]: float, bool or integer. Of pred's shape where there is no
            channel to pick.
        labels: int64 (n,), in [0, C), where target has one dimension less than pred; may be left out where C = 1.
        weight: one per instance (n,), or one per pixel, of the masks' shape.
        gamma: Focusing exponent; at least 0.
        alpha: Weight of the mask's inside; in [0, 1]; None or a negative number: none.
        reduction: 'none' (one number per instance (n,), in pred's dtype), 'mean' or 'sum' over the instances.
        avg_factor: 'mean' divides by avg_factor + 1.19e-7 instead of n; a number, or a tensor of shape () or (1,).
        activated: pred holds probabilities instead of logits.

    Returns:
        The loss; no instances give 0 with a gradient.

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C) (on a GPU it makes the instance's loss NaN), a number
            outside its range.
        TypeError: a wrong type or dtype.
    """

def asymmetric_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
    detach_weight: bool = False,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Asymmetric loss of `Asymmetric Loss For Multi-Label Classification`, arXiv 2009.14119.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = q^gamma_pos (-log p) for a positive;  s^gamma_neg (-log(1 - s)), s = max(p - clip, 0) for a negative

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        gamma_pos: Focusing exponent of positives, 1 in the authors' code, 0 in the paper; at least 0.
        gamma_neg: Focusing exponent of negatives; at least 0.
        clip: Probability below which a negative gives no loss; in [0, 0.999].
        detach_weight: Whether the modulating factors get no gradient; the authors' code does so by default; True or
            False.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def class_balanced_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    samples_per_class: Sequence[float] | Tensor,
    class_beta: float = 0.9999,
    gamma: float = 2.0,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Class-balanced focal loss of `Class-Balanced Loss Based on Effective Number of Samples`, each row weighted by its
    label, with n the samples of a class, background rows by 1, arXiv 1901.05555.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = w (1 - p_t)^gamma (-log p_t),  w = (1 - beta) / (1 - beta^n), scaled to the sum C over the classes

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        samples_per_class: Samples of each class in the training set; at least 1.
        class_beta: beta of the effective number of samples; in [0, 1].
        gamma: Focusing exponent; at least 0.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def equalized_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    scale: float = 8.0,
    ratio: float | Sequence[float] | Tensor = 1.0,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
    statistics: Tensor | None = None,
) -> Tensor:
    """Equalized focal loss of `Equalized Focal Loss for Dense Long-Tailed Object Detection`, with r of each class the
    ratio of the gradients that its positives and negatives have given, arXiv 2201.02593.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = (g / gamma) alpha_t (1 - p_t)^g (-log p_t),  g = gamma + scale (1 - r)

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        gamma: Focusing exponent; above 0.
        alpha: Weight of the positives; in [0, 1]; None or a negative number: none.
        scale: How much the exponent of a class without positives rises; at least 0.
        ratio: r of each class; in [0, 1], or one per class.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.
        statistics: (2, C) float64: the backward adds, class by class, the sums of the absolute gradients of positives
            and of negatives, weight and mean included, the upstream gradient not.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float | Sequence[float] | Tensor = 2.0,
    alpha: float | Sequence[float] | Tensor | None = 0.25,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
    activated: bool = False,
) -> Tensor:
    """Sigmoid focal loss of `Focal Loss for Dense Object Detection`, arXiv 1708.02002.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (1 - p_t)^gamma (-log p_t)

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        gamma: Focusing exponent; at least 0, or one per class.
        alpha: Weight of the positives; in [0, 1], or one per class; None or a negative number: none.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.
        activated: pred holds probabilities instead of logits; logarithms stop at -100, as in
            torch.nn.functional.binary_cross_entropy.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def sigmoid_focal_star_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float | Sequence[float] | Tensor = 1.0,
    beta: float = 0.0,
    alpha: float | Sequence[float] | Tensor | None = None,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Focal loss* of `Focal Loss for Dense Object Detection`, appendix (gamma 2 with beta 1, or gamma 4 with beta 0),
    arXiv 1708.02002.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (-log sigmoid(gamma x_t + beta)) / gamma,  x_t = x (2 y - 1)

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        gamma: Steepness; above 0, or one per class.
        beta: Shift of the margin; at least -inf.
        alpha: Weight of the positives; in [0, 1], or one per class; None or a negative number: none.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def gaussian_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    alpha: float = 2.0,
    gamma: float = 4.0,
    pos_weight: float = 1.0,
    neg_weight: float = 1.0,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
    from_logits: bool = False,
) -> Tensor:
    """Gaussian focal loss of `CornerNet`, with y a heatmap that is 1 at the objects and falls off around them, arXiv
    1808.01244.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = q^alpha (-log p) where y = 1;  (1 - y)^gamma p^alpha (-log q) elsewhere

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        alpha: Focusing exponent; at least 0.
        gamma: Exponent that spares the surroundings of an object; at least 0.
        pos_weight: Weight of the objects; at least 0.
        neg_weight: Weight of everything else; at least 0.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.
        from_logits: pred holds logits; by default it holds probabilities, as in mmdet, with 1e-12 added inside
            logarithms.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def iou_aware_bce_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    *,
    k: float = 0.25,
    gamma: float = 2.0,
    detach_weight: bool = False,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """IoU-aware BCE loss of `Align-DETR`, with y the quality (IoU) of a positive, arXiv 2304.07527.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = BCE(p, t), t = detach(max(p^k y^(1 - k), 0.01)) for a positive;  p^gamma (-log q) for a negative

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; the pair (labels, scores), a
            quality in [0, 1] for each label; or dense qualities of pred's shape, positive where above 0.
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        k: Share of the prediction in the target of a positive; in [0, 1].
        gamma: Focusing exponent; at least 0.
        detach_weight: Whether the modulating factor of negatives gets no gradient; True or False.
        reduction: 'none' (one value per row, in pred's dtype), 'mean' or 'sum' (float32; float64 for float64 logits).
            'mean' divides by the number of rows, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def matchability_aware_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    *,
    gamma: float = 1.5,
    mal_alpha: float = 1.0,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Matchability-aware loss of `DEIM: DETR with Improved Matching for Fast Convergence`, with y the quality (IoU), arXiv
    2412.04234.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = BCE(p, y^gamma) for a positive;  mal_alpha detach(p)^gamma (-log q) for a negative

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; the pair (labels, scores), a
            quality in [0, 1] for each label; or dense qualities of pred's shape, positive where above 0.
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        gamma: Focusing exponent; at least 0.
        mal_alpha: Weight of the negatives; at least 0.
        reduction: 'none' (one value per row, in pred's dtype), 'mean' or 'sum' (float32; float64 for float64 logits).
            'mean' divides by the number of rows, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def poly_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    epsilon: float = 1.0,
    gamma: float | Sequence[float] | Tensor = 2.0,
    alpha: float | Sequence[float] | Tensor | None = 0.25,
    alpha_on_poly: bool = False,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Poly-1 focal loss of `PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions`, arXiv
    2204.12511.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (1 - p_t)^gamma (-log p_t) + epsilon (1 - p_t)^(gamma + 1)

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        epsilon: Coefficient of the polynomial term; at least -1.
        gamma: Focusing exponent; at least 0, or one per class.
        alpha: Weight of the positives; in [0, 1], or one per class; None or a negative number: none.
        alpha_on_poly: Whether alpha_t multiplies the polynomial term too, unlike the paper's; True or False.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def position_supervised_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    normalize: str = 'none',
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Position-supervised loss of `Detection Transformer with Stable Matching`, with y the quality (IoU) of a positive,
    arXiv 2304.04742.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha |t - p|^gamma BCE(p, t), t = y^2 for a positive;  (1 - alpha) p^gamma (-log q) for a negative

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; the pair (labels, scores), a
            quality in [0, 1] for each label; or dense qualities of pred's shape, positive where above 0.
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        alpha: Weight of the positives; in [0, 1].
        gamma: Focusing exponent; at least 0.
        normalize: What t is divided by: for 'batch' its maximum over all rows + 1e-8 (the paper's code takes each
            image's, but a loss sees flat rows); 'none' or 'batch'.
        reduction: 'none' (one value per row, in pred's dtype), 'mean' or 'sum' (float32; float64 for float64 logits).
            'mean' divides by the number of rows, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def quality_focal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    *,
    beta: float = 2.0,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
    activated: bool = False,
) -> Tensor:
    """Quality focal loss of `Generalized Focal Loss`, with y the quality (IoU) of a positive, 0 elsewhere, arXiv
    2006.04388.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = |y - p|^beta BCE(p, y)

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; the pair (labels, scores), a
            quality in [0, 1] for each label; or dense qualities of pred's shape, positive where above 0.
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        beta: Exponent of the modulating factor; at least 0.
        reduction: 'none' (one value per row, in pred's dtype), 'mean' or 'sum' (float32; float64 for float64 logits).
            'mean' divides by the number of rows, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.
        activated: pred holds probabilities instead of logits; logarithms stop at -100, as in
            torch.nn.functional.binary_cross_entropy.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def reduced_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    threshold: float = 0.5,
    gamma: float | Sequence[float] | Tensor = 2.0,
    alpha: float | Sequence[float] | Tensor | None = None,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Reduced focal loss of `Reduced Focal Loss: 1st Place Solution to xView object detection in Satellite Imagery`, arXiv
    1903.01347.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = alpha_t (-log p_t) where p_t < threshold;  alpha_t ((1 - p_t) / threshold)^gamma (-log p_t) elsewhere

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        threshold: p_t below which the loss is the cross-entropy; in (0, 1].
        gamma: Focusing exponent; at least 0, or one per class.
        alpha: Weight of the positives; in [0, 1], or one per class; None or a negative number: none.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def softmax_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float | Sequence[float] | Tensor = 2.0,
    alpha: float | Sequence[float] | Tensor | None = 0.25,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Focal loss of `Focal Loss for Dense Object Detection` over a softmax, arXiv 1708.02002.

    With p = softmax(x) and y the label of the row:

        loss = alpha_y (1 - p_y)^gamma (-log p_y)

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C); a background has a class of its own.
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1).
        gamma: Focusing exponent; at least 0, or one per class.
        alpha: Factor of a row's loss, the one of its label; at least 0, or one per class; None or a negative number:
            none.
        reduction: 'none' (one value per row, in pred's dtype), 'mean' or 'sum' (float32; float64 for float64 logits).
            'mean' divides by the number of rows, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """

def varifocal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    detach_weight: bool = False,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Varifocal loss of `VarifocalNet: An IoU-aware Dense Object Detector`, with y the quality (IoU) of a positive, arXiv
    2008.13367.

    With p = sigmoid(x), q = 1 - p, p_t = p for a positive and q for a negative:

        loss = y BCE(p, y) where y > 0;  alpha p^gamma (-log q) elsewhere

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; the pair (labels, scores), a
            quality in [0, 1] for each label; or dense qualities of pred's shape, positive where above 0.
        weight: one number per row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one per element, of pred's shape
            or flat; or of as many dimensions, each pred's or 1: (1, ..., C).
        alpha: Weight of the negatives; at least 0.
        gamma: Focusing exponent; at least 0.
        iou_weighted: Whether a positive is weighted by its quality; True or False.
        detach_weight: Whether the modulating factor of negatives gets no gradient; True or False.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean'
            divides by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the mean.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; on the CPU a label outside its range, or a
            dense target, score or probability outside [0, 1]. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type, dtype or layout, an unknown argument.
    """
