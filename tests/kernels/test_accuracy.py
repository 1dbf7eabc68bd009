"""Every backend against the float64 oracle: the promised numerics, value and gradient."""

import numpy as np
import pytest
import torch

from focal_plugin import backend, functional
from focal_plugin.math import SPECS
from tests import oracle
from tests.conftest import ON_A_GPU
from tests.oracle.inputs import COMPILED_HALVES, DTYPES, logits
from tests.oracle.variants import variant_loss

GAMMAS = (0, 0.5, 1, 1.5, 2, 5)


def run(name, device, pred, target, **arguments):
    """Values and gradients under a random upstream gradient, and that gradient."""
    leaf = pred.detach().to(device, copy=True).requires_grad_()
    loss = functional.sigmoid_focal_loss(leaf, target.to(device), reduction='none', **arguments)
    upstream = torch.rand(loss.shape, generator=torch.Generator().manual_seed(1)).to(loss.dtype).add_(0.5)
    loss.backward(upstream.to(device))
    return loss.detach().cpu(), leaf.grad.cpu(), upstream


@pytest.mark.parametrize('dtype', COMPILED_HALVES, ids=str)
@pytest.mark.parametrize('gamma', GAMMAS)
def test_labels_at_every_logit(any_backend, device, dtype, gamma):
    if dtype == torch.float64 and any_backend != 'torch':
        pytest.skip('float64 is served by the torch backend')
    pred = torch.stack([logits(), logits()], 1).to(dtype)
    for label in (0, 2):  # each logit as a positive and as a negative, then both as background
        target = torch.full((len(pred),), label)
        loss, grad, upstream = run(any_backend, device, pred, target, gamma=gamma)
        exact = oracle.sigmoid_focal_loss(pred, target, gamma=gamma, reduction='none', upstream=upstream)
        oracle.assert_accurate(loss, exact.value)
        oracle.assert_accurate(grad, exact.grad)


@pytest.mark.parametrize('dtype', COMPILED_HALVES, ids=str)
@pytest.mark.parametrize('gamma', GAMMAS)
def test_soft_targets(any_backend, device, dtype, gamma):
    if dtype == torch.float64 and any_backend != 'torch':
        pytest.skip('float64 is served by the torch backend')
    pred = logits()[:-3].to(dtype)
    for y in (0.0, 1e-6, 0.3, 0.5, 1.0):
        target = torch.full(pred.shape, y, dtype=dtype)
        loss, grad, upstream = run(any_backend, device, pred, target, gamma=gamma)
        exact = oracle.sigmoid_focal_loss(pred, target, gamma=gamma, reduction='none', upstream=upstream)
        oracle.assert_accurate(loss, exact.value)
        oracle.assert_accurate(grad, exact.grad, exact.grad_terms, exact.through_p)


@pytest.mark.parametrize('dtype', DTYPES[:3], ids=str)
@pytest.mark.parametrize('gamma', (0, 1.5, 2))
def test_probabilities(any_backend, device, dtype, gamma):
    """activated=True, the ends 0 and 1 included: BCE's logarithms stop at -100, half gradients stay finite."""
    p = np.concatenate(
        [[1e-40, 1e-38], np.linspace(0, 1, 257), np.geomspace(1e-7, 0.1, 60), 1 - np.geomspace(1e-3, 0.1, 20)]
    )
    if backend.INTERPRETING and any_backend == 'triton' and dtype == torch.bfloat16:
        p = p[2:]  # Triton's interpreter reads subnormal bf16 numbers wrongly
    pred = torch.from_numpy(p).to(dtype)
    for y in (0.0, 0.4, 1.0):
        target = torch.full(pred.shape, y, dtype=dtype)
        loss, grad, upstream = run(any_backend, device, pred, target, gamma=gamma, activated=True)
        exact = oracle.sigmoid_focal_loss(
            pred, target, gamma=gamma, reduction='none', upstream=upstream, activated=True
        )
        largest = torch.finfo(dtype).max
        oracle.assert_accurate(loss, exact.value)
        oracle.assert_accurate(grad, exact.grad.clip(-largest, largest), exact.grad_terms, exact.through_p)
        assert grad.isfinite().all()


@pytest.mark.parametrize('alpha', (None, -1, 0, 1, 0.9), ids=str)
def test_alpha(any_backend, device, alpha):
    pred = logits()[:-3].float().unsqueeze(1)
    for label in (0, 1):
        target = torch.full((len(pred),), label)
        loss, grad, upstream = run(any_backend, device, pred, target, alpha=alpha)
        exact = oracle.sigmoid_focal_loss(pred, target, alpha=alpha, reduction='none', upstream=upstream)
        oracle.assert_accurate(loss, exact.value)
        oracle.assert_accurate(grad, exact.grad)


@pytest.mark.parametrize('dense', (False, True), ids=('labels', 'dense'))
def test_float64_keeps_alpha_in_float64(dense):
    """0.3 is another number in float32: where() of two Python numbers would have made it one."""
    pred = logits()[:-3].unsqueeze(1)
    target = torch.ones_like(pred) * 0.4 if dense else torch.ones(len(pred), dtype=torch.long)
    loss, grad, upstream = run('torch', 'cpu', pred, target, gamma=1.3, alpha=0.3)
    exact = oracle.sigmoid_focal_loss(pred, target, gamma=1.3, alpha=0.3, reduction='none', upstream=upstream)
    oracle.assert_accurate(loss, exact.value)
    oracle.assert_accurate(grad, exact.grad, exact.grad_terms, exact.through_p)


CANCELS = {
    'p - y of the cross-entropy': (
        'varifocal',
        {'alpha': 0.75, 'gamma': 2.0, 'iou_weighted': False, 'detach_weight': False},
    ),
    'p - y in its square too': ('quality_focal', {'beta': 2.0}),
    'p - y beside the modulating factor': ('focal', {'gamma': 2.0, 'alpha': 0.25}),
    'y and 1 - y in the derivative of a high power of 1 - p_t': ('focal', {'gamma': 5.0, 'alpha': None}),
    'y and 1 - y in the polynomial term': (
        'poly_focal',
        {'epsilon': 2.0, 'gamma': 4.0, 'alpha': None, 'alpha_on_poly': False},
    ),
    'y and 1 - y in the eased branch': ('reduced_focal', {'threshold': 0.3, 'gamma': 4.0, 'alpha': None}),
    'p - clip of rare negatives': (
        'asymmetric',
        {'gamma_pos': 1.0, 'gamma_neg': 4.0, 'clip': 0.05, 'detach_weight': False},
    ),
    'p - clip of frequent negatives': (
        'asymmetric',
        {'gamma_pos': 1.0, 'gamma_neg': 4.0, 'clip': 0.25, 'detach_weight': False},
    ),
}


@pytest.mark.parametrize(('name', 'arguments'), CANCELS.values(), ids=CANCELS)
def test_what_cancels_is_off_by_no_more_than_one_unit_of_p(any_backend, device, name, arguments):
    """Where it has nearly cancelled, at tens of thousands of logits: of the roundings on the way there only one is left."""
    if any_backend in ON_A_GPU:
        pytest.skip("a GPU's power of two is itself off by up to two units")
    random = torch.Generator().manual_seed(0)
    uniform = torch.rand(40_000, 2, generator=random, dtype=torch.float64)
    if name == 'asymmetric':
        clip = torch.tensor(arguments['clip'], dtype=torch.float64)
        x, y = (clip.logit() + 1e-3 * uniform).float(), torch.zeros(40_000, 2)
    elif arguments.get('gamma', 0) > 2:
        x = (2e-3 * (uniform - 0.5)).float()
        y = (0.5 + 2e-3 * (torch.rand(40_000, 2, generator=random) - 0.5)).float()
    else:
        x = (12 * uniform - 6).float()
        y = (x.double().sigmoid() * (1 + 2e-4 * (torch.rand(40_000, 2, generator=random) - 0.5))).float().clamp(max=1)
    leaf = x.to(device).requires_grad_()
    function = getattr(functional, SPECS[name].function)
    (grad,) = torch.autograd.grad(function(leaf, y.to(device), reduction='sum', **arguments), leaf)
    exact = variant_loss(name, x, y, reduction='sum', **arguments)
    oracle.assert_accurate(grad.cpu(), exact.grad, exact.grad_terms, exact.grad_through_p)


@pytest.mark.parametrize('target', (0.5, 0.4999, 0.501))
def test_a_probability_near_its_target(any_backend, device, target):
    """p - y of two given numbers cancels without any rounding."""
    if any_backend == 'triton':
        pytest.skip('the kernel takes the difference of (1 - y) p and y (1 - p)')
    p = (0.5 + 2e-3 * torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))).to(device).requires_grad_()
    loss = functional.quality_focal_loss(p, torch.full_like(p, target), beta=0.0, reduction='sum', activated=True)
    (grad,) = torch.autograd.grad(loss, p)
    wide = p.detach().double()
    exact = (wide - torch.full_like(p, target).double()) / (wide * (1 - wide))
    torch.testing.assert_close(grad.double(), exact, rtol=1e-6, atol=0)
