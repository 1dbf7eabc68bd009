"""The focal loss of masks, held to the oracle."""

import numpy as np
import torch

from focal_plugin import functional
from tests import oracle
from tests.oracle import assert_accurate
from tests.oracle.inputs import placed


def masks(shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n, channels, *size = shape
    pred = torch.randn(shape, generator=generator, dtype=torch.float64).mul(4).to(dtype)
    target = torch.rand(n, *size, generator=generator)
    labels = torch.randint(0, channels, (n,), generator=generator)
    return pred, target, labels, torch.rand(n, generator=generator)


def expected(pred, target, labels, weight, upstream, **options):
    """(one number per instance, the gradient by all of pred) in float64, by the oracle on the selected channel."""
    n, pixels = pred.size(0), max(target[0].numel() if len(target) else 1, 1)
    rows = np.arange(n)
    selected = pred.double().numpy()[rows, labels.numpy()].reshape(n, -1)
    by = (weight.double().numpy() * upstream.double().numpy())[:, None] / pixels
    exact = oracle.sigmoid_focal_loss(
        torch.from_numpy(selected), target.reshape(n, -1), reduction='none', upstream=by, **options
    )
    grads = []
    for part in (exact.grad, exact.grad_terms, exact.through_p):
        full = np.zeros(pred.shape)
        full[rows, labels.numpy()] = part.reshape(n, *pred.shape[2:])
        grads.append(full)
    factor = weight.double().numpy() / pixels
    return exact.value.sum(1) * factor, np.abs(exact.value).sum(1) * factor, *grads


def check_own_channel(device, shape, layout):
    """An instance is the mean of the channel of its label, which alone has a gradient, in the layout of the logits."""
    pred, target, labels, weight = masks(shape)
    pred = pred.to(memory_format=layout)
    upstream = torch.rand(len(pred))
    value, terms, *grads = expected(pred, target, labels, weight, upstream)
    leaf = placed(pred, device).requires_grad_()
    loss = functional.mask_focal_loss(leaf, *placed((target, labels, weight), device), reduction='none')
    loss.backward(upstream.to(device))
    assert loss.shape == labels.shape
    assert_accurate(loss.detach().cpu(), value, terms)
    assert_accurate(leaf.grad.cpu(), *grads)
    others = torch.ones(shape, dtype=torch.bool)
    others[torch.arange(len(pred)), labels] = False
    assert not leaf.grad.cpu()[others].any()
    assert [s for s, size in zip(leaf.grad.stride(), shape, strict=True) if size > 1] == [
        s for s, size in zip(pred.stride(), shape, strict=True) if size > 1
    ]
