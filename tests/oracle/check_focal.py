"""The sigmoid focal loss of one call, held to the oracle."""

import torch

from focal_plugin import functional
from tests import oracle
from tests.oracle.inputs import generator


def check(device, pred, target, weight=None, **arguments):
    """Value and gradient under a random upstream gradient against the oracle; gives (loss, pred's gradient)."""
    leaf = pred.to(device).detach().requires_grad_()
    to = lambda t: t.to(device) if isinstance(t, torch.Tensor) else t  # noqa: E731
    loss = functional.sigmoid_focal_loss(
        leaf, to(target), to(weight), **{name: to(value) for name, value in arguments.items()}
    )
    upstream = torch.rand(loss.shape, generator=generator(2)).to(loss.dtype) + 0.5
    loss.backward(upstream.to(device))
    arguments.setdefault('reduction', 'mean')
    exact = oracle.sigmoid_focal_loss(pred, target, weight, upstream=upstream, **arguments)
    value = exact.value.reshape(loss.shape)
    oracle.assert_accurate(loss.detach().cpu(), value, exact.value_terms.reshape(loss.shape))
    oracle.assert_accurate(leaf.grad.cpu(), exact.grad, exact.grad_terms, exact.through_p)
    return loss, leaf.grad
