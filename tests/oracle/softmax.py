"""The reference of the softmax focal loss and its derivatives, in closed form, as oracle.py has it for the sigmoid's.

With p = softmax(x) over the last dimension and y the label of a row:

    L        = a_y m^gamma B,                       B = -log p_y,  m = 1 - p_y
    dL/dx_j  = a_y (delta_jy - p_j) [gamma m^(gamma - 1) p_y log p_y - m^gamma]

Nothing is differentiated, and no margin is taken: the softmax is that of the definition, in numpy's longdouble, whose range
holds exp(10000) unshifted. Only 1 - p_y is written as the sum of the other probabilities, where it would cancel.
"""

from typing import NamedTuple

import numpy as np

from tests.oracle import array, long, scale_of, total


class Softmax(NamedTuple):
    """A whole call: the loss, its gradient times the upstream one, and the sum of the absolute values of the losses."""

    value: np.ndarray
    grad: np.ndarray
    value_terms: np.ndarray


def rows(x, labels, gamma=2.0, alpha=0.25) -> tuple[np.ndarray, np.ndarray]:
    """(loss of each row, its derivative by each logit); x of shape (N, C), gamma and alpha numbers or arrays of C."""
    x, labels = long(x), array(labels)
    own = labels[:, None] == np.arange(x.shape[-1])
    gamma, alpha = (np.broadcast_to(long(v), x.shape[-1:])[labels] for v in (gamma, 1.0 if alpha is None else alpha))
    with np.errstate(all='ignore'):
        power = np.exp(x)
        p = power / power.sum(-1, keepdims=True)
        p_y = p[own]
        miss = np.where(own, 0, p).sum(-1)
        # Both ends of the logarithm: log p_y from the logits where p_y is small, from 1 - p_y where that is.
        entropy = np.where(p_y < 0.5, np.log(power.sum(-1)) - x[own], -np.log1p(-miss))
        # gamma = 0 has no modulating factor, and its derivative is 0 also where 0 ** -1 is not.
        through_miss = np.where((gamma == 0) | (miss == 0), 0, gamma * miss ** (gamma - 1) * p_y * entropy)
        slope = -alpha * (through_miss + miss**gamma)
        direction = np.where(own, miss[:, None], -p)
        return (alpha * miss**gamma * entropy).astype(np.float64), (slope[:, None] * direction).astype(np.float64)


def softmax_focal_loss(
    pred,
    target,
    weight=None,
    *,
    gamma=2.0,
    alpha=0.25,
    reduction: str = 'mean',
    avg_factor=None,
    ignore_index=None,
    upstream=1.0,
) -> Softmax:
    """functional.softmax_focal_loss in float64: the same arguments, and the upstream gradient that grad is taken under."""
    x, labels = array(pred), array(target)
    classes = x.shape[-1]
    kept = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
    value, grad = rows(x.reshape(-1, classes), np.where(kept, labels, 0).ravel(), gamma, alpha)
    factor = (np.ones(labels.shape) if weight is None else array(weight).reshape(labels.shape)) * 1.0
    value = np.where(kept, factor * value.reshape(labels.shape), 0)
    scale = scale_of(reduction, avg_factor, labels.size)
    by_row = factor * np.broadcast_to(array(upstream), labels.shape) * scale
    grad = np.where(kept[..., None], by_row[..., None] * grad.reshape(x.shape), 0)
    if reduction == 'none':
        return Softmax(value, grad, np.abs(value))
    return Softmax(total(value) * scale, grad, total(np.abs(value)) * scale)
