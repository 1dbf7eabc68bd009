"""The loss of mmsegmentation's decode heads, held to the oracle: value and gradient of each reduction."""

import numpy as np
import torch

from focal_plugin.segmentation import FusedSegFocalLoss
from tests import oracle
from tests.oracle.inputs import placed


def definition(
    pred, target, weight=1.0, ignore_index=255, *, gamma=2.0, alpha=0.5, class_weight=1.0, upstream=1.0, **how
):
    """The oracle's loss with the classes in dimension 1; weight broadcasts to pred's shape."""
    factor = np.broadcast_to(oracle.array(weight), pred.shape) * _per_class(class_weight, pred).numpy()
    if target.shape != pred.shape:
        classes = torch.arange(pred.size(1)) if pred.size(1) > 1 else torch.tensor([1])
        if ignore_index is not None:
            factor = factor * (target != ignore_index).unsqueeze(1).numpy()
        target = (target.unsqueeze(1) == _per_class(classes, pred)).double()
    last = [np.moveaxis(oracle.array(each), 1, -1) for each in (pred, target, factor)]
    upstream = np.moveaxis(oracle.array(upstream), 1, -1) if np.ndim(upstream) else upstream
    found = oracle.sigmoid_focal_loss(*last, gamma=gamma, alpha=alpha, upstream=upstream, **how)
    return oracle.Reduced(*(np.moveaxis(each, -1, 1) if np.ndim(each) else each for each in found))


def _per_class(numbers, pred) -> torch.Tensor:
    return torch.as_tensor(numbers).reshape(1, -1, *[1] * (pred.dim() - 2))


def check(loss: FusedSegFocalLoss, pred, target, weight=None, same=1.0, *, device='cpu', avg_factor=None, **named):
    """Value and gradient against the definition, for each reduction.

    Args:
        same: the weight in a form that broadcasts to pred's shape.
    """
    arguments = {name: getattr(loss, name) for name in ('gamma', 'alpha', 'class_weight')}
    if loss.class_weight is None:
        del arguments['class_weight']
    for reduction in ('none', 'mean', 'sum'):
        average = {'avg_factor': avg_factor} if avg_factor is not None and reduction != 'sum' else {}
        leaf = placed(pred, device).detach().requires_grad_()
        value = loss(leaf, *placed((target, weight), device), **named, **average, reduction_override=reduction)
        upstream = torch.rand(value.shape) + 0.5
        value.backward(upstream.to(device))
        assert leaf.grad.stride() == leaf.stride()
        right = definition(
            pred, target, same, **named, **arguments, **average, reduction=reduction,
            upstream=upstream * loss.loss_weight,
        )  # fmt: skip
        oracle.assert_accurate(
            value.detach().cpu(), right.value * loss.loss_weight, right.value_terms * loss.loss_weight
        )
        oracle.assert_accurate(leaf.grad.cpu(), right.grad, right.grad_terms, right.through_p)
