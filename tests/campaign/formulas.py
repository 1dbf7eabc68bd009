"""The losses as differentiable formulas in float64, for what the closed forms of the reference do not hold: gradients of
targets and scores, and second derivatives.

The formula of each is its module's (tests/variants); here are the targets, weights and sums around it.
"""

import math

import torch
from torch import Tensor

from tests.campaign.call import Call
from tests.campaign.tensors import in_memory
from tests.oracle import EPS, spread
from tests.oracle.formulas import sigmoid, softplus


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
    formula = call.spec.formula or _softmax
    element = formula(x, y, positive, **given)
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


def _softmax(x, y, selected, gamma, alpha):
    """At the label's own element; margin and sigmoid as in the reference."""
    others = torch.where(selected, -torch.inf, x)
    mine = torch.where(selected, x, 0.0).sum(-1, keepdim=True)
    # exp(-d) directly: a sum of exponentials of differences of ordinary logits.
    margin = -torch.log(torch.where(selected, 0.0, torch.exp(others - mine)).sum(-1, keepdim=True))
    loss = (1.0 if alpha is None else alpha) * sigmoid(-margin) ** gamma * softplus(-margin)
    return torch.where(selected, loss, 0.0)
