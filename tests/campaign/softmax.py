"""The focal loss of one row over a softmax, with its limits at infinite logits."""

import numpy as np

from tests.oracle import long, softplus, times


def softmax_point(x, labels, gamma, alpha):
    """(loss of each row, its derivative by each logit, the sum of the absolute values of its terms).

    With the margin d = x_y - log sum exp(x_j) over j != y, p_y = sigmoid(d): the loss is that of the logit d as a positive,
    and of the others' derivative each has the share exp(x_j) / sum exp(x_k), k != y. At most one logit of a row is infinite.
    """
    classes = x.shape[-1]
    selected = labels[..., None] == np.arange(classes)
    gamma, alpha = (np.broadcast_to(long(1.0 if v is None else v), (classes,))[labels] for v in (gamma, alpha))
    unknown = np.isnan(x).any(-1)
    with np.errstate(all='ignore'):
        mine = np.where(selected, x, 0).sum(-1)
        others = np.where(selected, -np.inf, x)
        top = others.max(-1, keepdims=True)
        power = np.where(others == top, 1, np.exp(others - top))
        power = np.where(others == -np.inf, 0, power)
        total = power.sum(-1, keepdims=True)
        margin = np.where(np.isinf(mine), mine, mine - (top + np.log(total))[..., 0])
        share = np.where(total == 0, 0, power / total)
        p, q, entropy = 1 / (1 + np.exp(-margin)), 1 / (1 + np.exp(margin)), softplus(-margin)
        modulating = alpha * q**gamma
        value = times(modulating, entropy)
        slope = -modulating * (gamma * times(p, entropy) + q)
        grad = np.where(selected, slope[..., None], -slope[..., None] * share)
    value, grad = np.where(unknown, np.nan, value), np.where(unknown[..., None], np.nan, grad)
    return value, grad, np.abs(grad)
