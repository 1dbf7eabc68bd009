"""The softmax focal loss of one call, held to the oracle."""

import torch

from focal_plugin import functional
from tests import oracle
from tests.oracle import softmax as oracle_softmax
from tests.oracle.inputs import generator, placed


def inputs(*shape, dtype=torch.float32, spread=4.0):
    pred = (torch.randn(shape, generator=generator()) * spread).to(dtype)
    labels = torch.randint(0, shape[-1], shape[:-1], generator=generator(1))
    return pred, labels, torch.rand(shape[:-1], generator=generator(2)) + 0.5


def check(device, pred, labels, weight=None, **arguments):
    """Value and gradient under a random upstream gradient against the oracle; gives (loss, gradient)."""
    leaf = placed(pred, device).detach().requires_grad_()
    loss = functional.softmax_focal_loss(leaf, *placed((labels, weight), device), **placed(arguments, device))
    upstream = torch.rand(loss.shape, generator=generator(3)).to(loss.dtype) + 0.5
    loss.backward(upstream.to(device))
    arguments.setdefault('reduction', 'mean')
    exact = oracle_softmax.softmax_focal_loss(pred, labels, weight, upstream=upstream, **arguments)
    oracle.assert_accurate(loss.detach().cpu(), exact.value.reshape(loss.shape), exact.value_terms.reshape(loss.shape))
    oracle.assert_accurate(leaf.grad.cpu(), exact.grad)
    return loss, leaf.grad


def check_every_margin(device, dtype, gamma):
    """One logit far from, near to and far above the others, as the label and not."""
    far = torch.cat([torch.linspace(-120, 120, 97), torch.tensor([1e4, -1e4, 700.0, -700.0, 1e-6, 0.0])]).double()
    pred = torch.stack([far, torch.zeros_like(far), torch.full_like(far, -1.5)], 1).to(dtype)
    for label in (0, 1):
        check(device, pred, torch.full((len(pred),), label), gamma=gamma, reduction='none')


INF, NAN = float('inf'), float('nan')
# logits, of which the label's is the first; the loss; the gradient
LIMITS = {
    'its own': ([INF, 1.0, 2.0], 0.0, [0.0, 0.0, 0.0]),
    'one other': ([0.0, INF, 2.0], INF, [-0.25, 0.25, 0.0]),
    'two others, of equal right': ([0.0, INF, INF], INF, [-0.25, 0.125, 0.125]),
    'its own and another: either could win': ([INF, INF, 2.0], NAN, [NAN] * 3),
    'all others negative': ([0.0, -INF, -INF], 0.0, [0.0, 0.0, 0.0]),
    'all negative: either could win': ([-INF, -INF, -INF], NAN, [NAN] * 3),
}


def check_limit(device, pred, value, grad, gamma):
    """Of a row with infinite logits; where either of two could win, a NaN."""
    leaf = torch.tensor([pred], device=device, requires_grad=True)
    label = torch.zeros(1, dtype=torch.long, device=device)
    loss = functional.softmax_focal_loss(leaf, label, gamma=gamma, reduction='none')
    loss.sum().backward()
    torch.testing.assert_close(loss.detach().cpu(), torch.tensor([value]), equal_nan=True)
    got, expected = leaf.grad[0].cpu(), torch.tensor(grad)
    if loss.isnan():
        assert got.isnan().any()
    else:
        torch.testing.assert_close(got, expected)
