"""One public function for each variant."""

from collections.abc import Sequence

import torch
from torch import Tensor

from focal_plugin import arguments, backend
from focal_plugin.kernels import eager
from focal_plugin.kernels.problem import Problem
from focal_plugin.math import Spec, focal
from focal_plugin.ops.elementwise import elementwise

EPS = eager.EPS


def apply(
    spec: Spec,
    parameters: Sequence[float | Tensor],
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
    activated: bool = False,
    loss_weight: float = 1.0,
) -> Tensor:
    """Runs any variant: checks and canonical forms, the factor of the reduction, the backend.

    Args:
        spec: the variant.
        parameters: its packed parameters (``spec.pack``), each a number or a tensor of C.
        loss_weight: a factor that is folded into the kernel.

    The other arguments are those of :func:`sigmoid_focal_loss`.
    """
    arguments.check_reduction(reduction, avg_factor)
    arguments.check_pred(pred)
    arguments.check_ignore_index(ignore_index)
    target = arguments.canonical_target(pred, target, ignore_index)
    weight = arguments.canonical_weight(pred, weight)
    avg_factor = arguments.canonical_avg_factor(pred, avg_factor)

    scale, divisor = float(loss_weight), None
    if reduction == 'mean':
        if isinstance(avg_factor, Tensor):
            divisor = avg_factor
        else:
            scale = scale / (max(pred.numel(), 1) if avg_factor is None else avg_factor + EPS)

    parameters, table = _table(parameters, pred)
    tensors = (target, weight, table, divisor)
    more = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    name = backend.choose(pred, more)
    problem = Problem(
        pred,
        target,
        None,
        weight,
        table,
        divisor,
        spec,
        parameters,
        activated,
        ignore_index,
        scale,
        reduction != 'none',
    )
    return eager.compose(problem) if more else elementwise(problem, name)


def _table(parameters: Sequence[float | Tensor], pred: Tensor) -> tuple[list[float], Tensor | None]:
    """Numbers as they are; with a vector among them, all as one (parameters, C) tensor."""
    if not any(isinstance(p, Tensor) for p in parameters):
        return list(parameters), None
    dtype, classes = torch.promote_types(pred.dtype, torch.float32), pred.size(-1)
    for p in parameters:
        if isinstance(p, Tensor) and p.dim() == 1 and p.numel() not in (1, classes):
            raise ValueError(f'{p.numel()} values of gamma or alpha for logits of {classes} classes: write one a class')
    planes = [torch.as_tensor(p, dtype=dtype, device=pred.device).expand(classes) for p in parameters]
    return [], torch.stack(planes)


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float | Sequence[float] | Tensor = focal.SPEC.defaults['gamma'],
    alpha: float | Sequence[float] | Tensor | None = focal.SPEC.defaults['alpha'],
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
    activated: bool = False,
) -> Tensor:
    """Sigmoid focal loss of `Focal Loss for Dense Object Detection`, arXiv 1708.02002.

    With p = sigmoid(pred), and p_t = p where the target is 1, 1 - p where it is 0:

        loss = alpha_t (1 - p_t)^gamma (-log p_t),  alpha_t = alpha for a target of 1, 1 - alpha for 0.

    A soft target y weighs the two cases, as mmdet's ``py_sigmoid_focal_loss``: alpha_t = alpha y + (1 - alpha)(1 - y),
    1 - p_t = (1 - p) y + p (1 - y), and binary cross-entropy with y.

    Args:
        pred: logits of any shape (..., C) and any strides; float64, float32, float16 or bfloat16. It is read where it
            lies, and its gradient has the same layout.
        target: integer labels of shape pred.shape[:-1], class c in [0, C), background C; or dense values in [0, 1] of
            pred's shape (float, bool or integer).
        weight: one number a row, of shape pred.shape[:-1] or (*pred.shape[:-1], 1); one an element, of pred's shape or
            flat; or one a class, of shape (1, ..., C).
        gamma: focusing exponent, at least 0; a number, or a sequence or tensor of C.
        alpha: weight of the positives in [0, 1]; None or a negative number: no alpha; or a sequence or tensor of C.
        reduction: 'none' (pred's shape and dtype), 'mean' or 'sum' (float32; float64 for float64 logits). 'mean' divides
            by the number of elements, or by avg_factor + 1.19e-7 where that is given.
        avg_factor: a number, or a tensor of shape () or (1,), which gives the result its shape; never read by the host.
        ignore_index: rows with this label give no loss and no gradient; they count in the number of elements.
        activated: pred holds probabilities instead of logits; logarithms stop at -100, as in
            torch.nn.functional.binary_cross_entropy.

    Returns:
        The loss. An empty pred gives 0 with a gradient.

    Raises:
        ValueError: a shape, device, value, reduction or backend that does not fit; a label outside [0, C] or a
            probability outside [0, 1] on the CPU. On a GPU a wrong label makes its row's loss and gradient NaN.
        TypeError: a wrong type or dtype.
    """
    arguments.check_pred(pred)
    classes, device = pred.size(-1), pred.device
    gamma = arguments.parameter('gamma', gamma, 0, classes=classes, device=device)
    alpha = arguments.alpha_parameter(alpha, classes, device)
    return apply(
        focal.SPEC,
        focal.pack(gamma, alpha),
        pred,
        target,
        weight,
        reduction=reduction,
        avg_factor=avg_factor,
        ignore_index=ignore_index,
        activated=activated,
    )
