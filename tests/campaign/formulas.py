"""The losses as differentiable formulas in float64, for what the closed forms of the reference do not hold: gradients of
targets and scores, and second derivatives.

Written for logits of ordinary size, where nothing saturates: the exponentials stand as they are, and autograd does the rest.
"""

import math

import torch
from torch import Tensor

from tests.campaign.call import Call
from tests.campaign.tensors import in_memory
from tests.oracle import EPS, spread


def softplus(z: Tensor) -> Tensor:
    return torch.log1p(torch.exp(z))


def loss(call: Call, x: Tensor, values: Tensor | None) -> Tensor:
    """The whole call in float64 as a function of the logits and of the dense target or the scores."""
    given = {name: _numbers(name, each) for name, each in call.spec.complete(call.given).items()}
    target = call.target[0] if isinstance(call.target, tuple) else call.target
    kept = torch.ones(x.shape, dtype=torch.bool)
    if target.dim() < x.dim():
        labels = target.long()
        if call.ignore_index is not None:
            kept = (labels != int(call.ignore_index)).unsqueeze(-1).expand(x.shape)
        positive = kept & (labels.unsqueeze(-1) == torch.arange(x.size(-1)))
        score = 1.0 if values is None else values.unsqueeze(-1)
        y = torch.where(positive, score, 0.0).double()
    else:
        y = target.double() if values is None else values
        positive = y.detach() > 0
    x = torch.where(kept, x, 0.0)
    if call.variant == 'softmax_focal':
        element = _softmax(x, positive, given)
    else:
        element = FORMULAS[call.variant](x, y, positive, **given)
    if call.weight is not None:
        weight = torch.from_numpy(spread(in_memory(call.weight).double().numpy(), tuple(x.shape)).copy())
        element = element * torch.where(kept, weight, 0.0)
    element = torch.where(kept, element, 0.0)
    count = math.prod(x.shape[:-1]) if call.spec.per_row else x.numel()
    if call.reduction == 'none':
        return (element.sum(-1) if call.spec.per_row else element) * call.loss_weight
    scale = call.loss_weight
    if call.reduction == 'mean':
        scale = scale / (max(count, 1) if call.avg_factor is None else float(call.avg_factor) + EPS)
    return element.sum().reshape(call.output_shape) * scale


def _numbers(name: str, value):
    if name == 'alpha' and (value is None or (isinstance(value, (int, float)) and value < 0)):
        return None
    return torch.as_tensor(value, dtype=torch.float64) if isinstance(value, (list, Tensor)) else value


def _alpha_t(alpha, y):
    return 1.0 if alpha is None else alpha * y + (1 - alpha) * (1 - y)


def _bce(x, t):
    return t * softplus(-x) + (1 - t) * softplus(x)


def _p(x):
    return 1 / (1 + torch.exp(-x))


def _negative(x, gamma):
    return _p(x) ** gamma


def _focal(x, y, positive, gamma, alpha):
    miss = y * _p(-x) + (1 - y) * _p(x)
    return _alpha_t(alpha, y) * miss**gamma * _bce(x, y)


def _focal_star(x, y, positive, gamma, beta, alpha):
    return _alpha_t(alpha, y) * softplus(-(gamma * x * (2 * y - 1) + beta)) / gamma


def _distance(x, t, exponent):
    """|t - p| ^ exponent, a constant 0 where t = p."""
    distance = t * _p(-x) - (1 - t) * _p(x)  # t - p
    met = distance == 0
    return torch.where(met, 0.0**exponent, torch.where(met, 1.0, distance).abs() ** exponent)


def _quality_focal(x, y, positive, beta):
    return _distance(x, y, beta) * _bce(x, y)


def _detached(factor, flag):
    return factor.detach() if flag else factor


def _varifocal(x, y, positive, alpha, gamma, iou_weighted, detach_weight):
    negative = alpha * _detached(_negative(x, gamma), detach_weight) * softplus(x)
    return torch.where(y > 0, (y if iou_weighted else 1.0) * _bce(x, y), negative)


def _gaussian_focal(x, y, positive, alpha, gamma, pos_weight, neg_weight):
    attracted = pos_weight * _p(-x) ** alpha * softplus(-x)
    around = torch.where(y == 1, 0.5, 1 - y)
    return torch.where(y == 1, attracted, neg_weight * around**gamma * _p(x) ** alpha * softplus(x))


def _matchability_aware(x, y, positive, gamma, mal_alpha):
    target = torch.where(positive, y, 1.0) ** gamma
    return torch.where(positive, _bce(x, target), mal_alpha * _negative(x, gamma).detach() * softplus(x))


def _iou_aware_bce(x, y, positive, k, gamma, detach_weight):
    t = (_p(x) ** k * y ** (1 - k)).clamp(min=0.01).detach()
    return torch.where(positive, _bce(x, t), _detached(_negative(x, gamma), detach_weight) * softplus(x))


def _position_supervised(x, y, positive, alpha, gamma, normalize):
    t = y**2
    if normalize == 'batch' and t.numel():
        t = t / (t.max() + 1e-8)
    attracted = alpha * _distance(x, t, gamma) * _bce(x, t)
    return torch.where(positive, attracted, (1 - alpha) * _negative(x, gamma) * softplus(x))


def _equalized_focal(x, y, positive, gamma, alpha, scale, ratio):
    own = gamma + scale * (1 - ratio)
    return own / gamma * _focal(x, y, positive, own, alpha)


def _poly_focal(x, y, positive, epsilon, gamma, alpha, alpha_on_poly):
    miss = y * _p(-x) + (1 - y) * _p(x)
    factor = epsilon * (_alpha_t(alpha, y) if alpha_on_poly else 1.0)
    return _focal(x, y, positive, gamma, alpha) + factor * miss ** (gamma + 1)


def _asymmetric(x, y, positive, gamma_pos, gamma_neg, clip, detach_weight):
    attracted = _detached(_p(-x) ** gamma_pos, detach_weight) * softplus(-x)
    if clip == 0:
        repelled = _detached(_p(x) ** gamma_neg, detach_weight) * softplus(x)
    else:
        inside = _p(x) > clip
        shifted = torch.where(inside, _p(x) - clip, 0.5)
        repelled = _detached(shifted**gamma_neg, detach_weight) * -torch.log1p(-shifted)
        repelled = torch.where(inside, repelled, 0.0)
    return y * attracted + (1 - y) * repelled


def _reduced_focal(x, y, positive, threshold, gamma, alpha):
    miss = y * _p(-x) + (1 - y) * _p(x)
    modulating = torch.where(1 - miss < threshold, 1.0, (miss / threshold) ** gamma)
    return _alpha_t(alpha, y) * modulating * _bce(x, y)


def _softmax(x, own, given):
    """At the label's own element; margin and sigmoid as in the reference."""
    others = torch.where(own, -torch.inf, x)
    mine = torch.where(own, x, 0.0).sum(-1, keepdim=True)
    # exp(-d) directly: a sum of exponentials of differences of ordinary logits.
    margin = -torch.log(torch.where(own, 0.0, torch.exp(others - mine)).sum(-1, keepdim=True))
    alpha = 1.0 if given['alpha'] is None else given['alpha']
    return torch.where(own, alpha * _p(-margin) ** given['gamma'] * softplus(-margin), 0.0)


FORMULAS = {
    'focal': _focal,
    'focal_star': _focal_star,
    'quality_focal': _quality_focal,
    'varifocal': _varifocal,
    'gaussian_focal': _gaussian_focal,
    'matchability_aware': _matchability_aware,
    'iou_aware_bce': _iou_aware_bce,
    'position_supervised': _position_supervised,
    'equalized_focal': _equalized_focal,
    'class_balanced_focal': lambda x, y, positive, gamma, **_: _focal(x, y, positive, gamma, None),
    'poly_focal': _poly_focal,
    'asymmetric': _asymmetric,
    'reduced_focal': _reduced_focal,
}
