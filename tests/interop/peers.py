"""The formula that fvcore and torchvision share, and what the tests of both compare."""

import inspect

import torch
import torch.nn.functional as F


def formula(inputs, targets, alpha, gamma, reduction='none'):
    """Binary cross-entropy times (1 - p_t)^gamma times alpha_t, through torch's autograd."""
    p = inputs.sigmoid()
    p_t = targets * p + (1 - targets) * (1 - p)
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction='none') * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return {'none': lambda: loss, 'mean': loss.mean, 'sum': loss.sum}[reduction]()


def signature(function):
    """Names, kinds and defaults, in order, as inspect sees them; without annotations, which the peers lack or vary."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def value_and_grad(function, inputs, upstream=None):
    """The result of function(inputs) and the gradient of inputs under the upstream gradient."""
    inputs = inputs.detach().clone().requires_grad_()
    loss = function(inputs)
    loss.backward(torch.ones_like(loss) if upstream is None else upstream)
    return loss.detach(), inputs.grad


def logit(p):
    return (p / (1 - p)).log()
