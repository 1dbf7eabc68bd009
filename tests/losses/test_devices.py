"""Devices that are not there: what Apple's GPUs lack, and a default device that is not the logits'."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import focal_plugin
from focal_plugin import functional, tensors
from focal_plugin.math import SPECS
from tests.losses.built import C, N, built
from tests.variants import VARIANTS

FLOAT64 = ('class_balanced_focal', 'equalized_focal')  # whose numbers per class are buffers of float64


class Float64(TorchDispatchMode):
    """Refuses it, as Apple's GPUs do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for each in tree_leaves(results):
            assert not isinstance(each, torch.Tensor) or each.dtype != torch.float64, function
        return results


def step(loss, target, reduction):
    pred = torch.randn(N, C, generator=torch.Generator().manual_seed(0), device='cpu')
    pred = (pred.sigmoid() if loss.takes_probabilities else pred).requires_grad_()
    value = loss(pred, target, reduction_override=reduction)
    value.sum().backward()
    return value.detach(), pred.grad


def target_of(name):
    if name == 'gaussian_focal':
        return torch.rand(N, C)
    return torch.arange(N) % (C + (SPECS[name].family == 'elementwise'))


@pytest.mark.parametrize('reduction', ('none', 'mean', 'sum'))
@pytest.mark.parametrize('name', [name for name in VARIANTS if name not in FLOAT64])
def test_no_float64_is_made_for_a_device_without_it(name, reduction, monkeypatch):
    loss, target = built(name), target_of(name)
    with focal_plugin.use_backend('torch'):
        expected = step(loss, target, reduction)
        monkeypatch.setattr(tensors, 'WITHOUT_FLOAT64', ('cpu',))
        with Float64():
            found = step(loss, target, reduction)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('backend', ('auto', 'torch'))
@pytest.mark.parametrize('reduction', ('none', 'mean', 'sum'))
@pytest.mark.parametrize('name', VARIANTS)
def test_the_default_device_is_not_that_of_the_logits(name, reduction, backend):
    loss, target = built(name), target_of(name)
    with focal_plugin.use_backend(backend):
        expected = step(loss, target, reduction)
        with torch.device('meta'):
            found = step(loss, target, reduction)
    assert all(map(torch.equal, found, expected))


def test_numbers_per_class_are_made_where_they_can_be_looked_at():
    pred, target = torch.randn(N, C), torch.arange(N) % C
    expected = functional.sigmoid_focal_loss(pred, target, alpha=[0.1, 0.2, 0.3, 0.4, 0.5])
    with torch.device('meta'):
        assert torch.equal(functional.sigmoid_focal_loss(pred, target, alpha=[0.1, 0.2, 0.3, 0.4, 0.5]), expected)
