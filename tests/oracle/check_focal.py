"""The sigmoid focal loss of one call, held to the oracle."""

import torch

from focal_plugin import functional
from tests import oracle
from tests.oracle.inputs import generator, placed, predictions


def check(device, pred, target, weight=None, **arguments):
    """Value and gradient under a random upstream gradient against the oracle; gives (loss, pred's gradient)."""
    leaf = placed(pred, device).detach().requires_grad_()
    loss = functional.sigmoid_focal_loss(leaf, *placed((target, weight), device), **placed(arguments, device))
    upstream = torch.rand(loss.shape, generator=generator(2)).to(loss.dtype) + 0.5
    loss.backward(upstream.to(device))
    arguments.setdefault('reduction', 'mean')
    exact = oracle.sigmoid_focal_loss(pred, target, weight, upstream=upstream, **arguments)
    value = exact.value.reshape(loss.shape)
    oracle.assert_accurate(loss.detach().cpu(), value, exact.value_terms.reshape(loss.shape))
    oracle.assert_accurate(leaf.grad.cpu(), exact.grad, exact.grad_terms, exact.through_p)
    return loss, leaf.grad


def check_nan_reaches_no_neighbour(classes: int) -> None:
    """The NaN of an ignored row stays out of a sum, and that of any row out of the others' values."""
    pred, target = predictions(40, classes), torch.full((40,), classes)
    pred[7], target[7] = float('nan'), 255
    assert functional.sigmoid_focal_loss(pred, target).isnan()
    assert functional.sigmoid_focal_loss(pred, target, ignore_index=255).isfinite()
    target[7] = classes
    rows = functional.quality_focal_loss(pred, (target, torch.ones(40)), reduction='none').isnan()
    assert rows.nonzero().tolist() == [[7]]
