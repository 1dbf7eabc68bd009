"""What forward and backward allocate beside the logits: counted by PyTorch's own allocator, so exact."""

import itertools

import pytest
import torch

import focal_plugin
from focal_plugin import functional
from tests.allocations import allocated, allocations

LAYOUTS = {
    'rows of classes': lambda: torch.randn(20000, 80),
    'an NCHW map, permuted': lambda: torch.randn(2, 9 * 80, 32, 32).view(2, 9, 80, 32, 32).permute(0, 3, 4, 1, 2),
    'every second class': lambda: torch.randn(20000, 80)[:, ::2],
}


@pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')
@pytest.mark.parametrize('make', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
def test_native_allocates_the_gradient_and_nothing_else(make, dtype):
    from focal_plugin.losses import FusedFocalLoss

    pred = make().to(dtype).requires_grad_()
    target = torch.randint(0, pred.size(-1) + 1, pred.shape[:-1])
    weight, loss = torch.rand(pred.shape[:-1]), FusedFocalLoss()
    logits = pred.numel() * pred.element_size()

    def step():
        value = loss(pred, target, weight, avg_factor=100.0)
        torch.autograd.grad(value, pred)

    step()
    assert logits <= allocated(step) <= 1.01 * logits


def test_torch_backend_works_in_chunks():
    """Beside the gradient the peak is a few chunks, not a few times the logits."""
    pred = torch.randn(50000, 80).requires_grad_()
    target = torch.randint(0, 81, (50000,))
    logits = pred.numel() * 4
    with focal_plugin.use_backend('torch'):
        sizes = allocations(lambda: torch.autograd.grad(functional.sigmoid_focal_loss(pred, target), pred))
    peak = max(itertools.accumulate(sizes))
    assert logits <= peak <= 1.6 * logits
