"""What lies or is made elsewhere: devices without float64, a default device that is not the logits', weights that learn."""

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


BUFFERS = {
    'alpha': ('focal', dict(alpha=[0.1, 0.2, 0.3, 0.4, 0.5])),
    'class_weight': ('focal', dict(class_weight=[1.0, 2.0, 3.0, 4.0, 5.0])),
    'sums of gradients': ('equalized_focal', {}),
}


@pytest.mark.parametrize(('name', 'config'), BUFFERS.values(), ids=BUFFERS)
def test_buffers_are_moved_to_a_device_without_float64(name, config, monkeypatch):
    expected = step(built(name, **config).train(), target_of(name), 'mean')
    monkeypatch.setattr(tensors, 'WITHOUT_FLOAT64', ('cpu',))
    loss = built(name, **config).train().to('cpu')
    with Float64(), focal_plugin.use_backend('torch'):
        torch.testing.assert_close(step(loss, target_of(name), 'mean'), expected, rtol=1e-5, atol=1e-8)
    assert all(buffer.dtype != torch.float64 for buffer in loss.buffers())


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


@pytest.mark.parametrize('backend', ('auto', 'torch'))
@pytest.mark.parametrize('name', VARIANTS)
def test_a_weight_that_learns_is_one_like_others_where_nothing_is_recorded(name, backend):
    loss, target = built(name), target_of(name)
    pred = torch.rand(N, C) if loss.takes_probabilities else torch.randn(N, C)
    for weight in (torch.rand(N), torch.rand(N, 1), torch.rand(N).double()):
        with torch.no_grad(), focal_plugin.use_backend(backend):
            expected = loss(pred, target, weight=weight.clone())
            assert torch.equal(loss(pred, target, weight=weight.requires_grad_()), expected)
