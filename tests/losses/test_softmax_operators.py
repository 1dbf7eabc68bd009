"""The softmax focal loss under PyTorch: its operators, what they allocate and save, and derivatives of second order."""

import contextlib

import pytest
import torch

import focal_plugin
from focal_plugin import functional
from focal_plugin.ops import library
from tests.conftest import one_graph
from tests.oracle.check_softmax import inputs


@pytest.mark.parametrize('output', ('sum', 'row'))
def test_opcheck(any_backend, device, output):
    if any_backend == 'torch':
        pytest.skip('plain PyTorch operations need no operator of their own')
    pred, labels, weight = (t.to(device) for t in inputs(7, 5))
    avg_factor = torch.tensor([3.0], device=device) if output == 'sum' else None
    problem = (
        *(pred, labels, None, weight[:, None].expand(7, 5), None, avg_factor, None),
        *('softmax_focal', [2.0, 0.25, 0.0], False, None, 0.5, output, any_backend),
    )
    torch.library.opcheck(library.loss_forward, problem)
    upstream = torch.rand((1,) if output == 'sum' else (7,), device=device)
    torch.library.opcheck(library.loss_backward, (upstream, False, *problem))


@one_graph
@pytest.mark.skipif(focal_plugin.backend.INTERPRETING, reason='the compiler would trace through the interpreter')
def test_compiles_into_one_graph(any_backend, device):
    from focal_plugin.losses import FusedSoftmaxFocalLoss

    pred, labels, weight = (t.to(device) for t in inputs(7, 5))
    module = FusedSoftmaxFocalLoss(alpha=[0.1, 0.2, 0.3, 0.4, 0.5]).to(device)
    results = []
    for loss in (module, torch.compile(module, fullgraph=True)):
        leaf = pred.clone().requires_grad_()
        value = loss(2 * leaf, labels, weight, avg_factor=3.0)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*results)


@pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')
def test_native_allocates_the_gradient_and_nothing_else():
    from tests.allocations import allocated

    pred, labels, weight = inputs(20000, 81)
    pred.requires_grad_()

    def step():
        torch.autograd.grad(functional.softmax_focal_loss(pred, labels, weight, avg_factor=9.0), pred)

    step()
    logits = pred.numel() * 4
    assert logits <= allocated(step) <= 1.02 * logits


def test_double_backward_in_float64():
    pred, labels, _ = inputs(4, 3, dtype=torch.float64, spread=1.0)
    pred.requires_grad_()
    for gamma in (1.5, 2.0):
        assert torch.autograd.gradcheck(lambda x, g=gamma: functional.softmax_focal_loss(x, labels, gamma=g), pred)
        assert torch.autograd.gradgradcheck(lambda x, g=gamma: functional.softmax_focal_loss(x, labels, gamma=g), pred)


def test_nothing_is_saved_but_the_arguments_and_on_a_cpu_the_gradient(device):
    arguments = pred, labels, weight = [t.to(device) for t in inputs(7, 5)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        functional.softmax_focal_loss(pred.requires_grad_(), labels, weight)
    others = [t.shape for t in saved if t.data_ptr() not in {t.data_ptr() for t in arguments}]
    assert len(saved) > len(others)
    assert others == [pred.shape] * (focal_plugin.backend.choose(pred) == 'native')


def test_backward_is_pure(device):
    pred, labels, weight = (t.to(device) for t in inputs(7, 5))
    loss = functional.softmax_focal_loss(pred.requires_grad_(), labels, weight)
    assert torch.equal(*(torch.autograd.grad(loss, pred, retain_graph=True)[0] for _ in range(2)))


def test_second_derivative_of_every_backend(device):
    pred, labels, _ = inputs(7, 5)
    results = []
    for dtype in (torch.float32, torch.float64):
        with focal_plugin.use_backend('torch') if dtype == torch.float64 else contextlib.nullcontext():
            leaf = pred.to(device, dtype).requires_grad_()
            loss = functional.softmax_focal_loss(leaf, labels.to(device))
            (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
            results.append(torch.autograd.grad(grad.square().sum(), leaf)[0].double())
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-9)


def test_gradients_of_weight_and_alpha():
    pred, labels, weight = inputs(7, 5, dtype=torch.float64)
    weight, alpha = weight.double().requires_grad_(), torch.rand(5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w, a: functional.softmax_focal_loss(pred, labels, w, alpha=a), (weight, alpha)
    )


@pytest.mark.compiled
def test_the_same_input_gives_the_same_bits(device):
    pred, labels, _ = (t.to(device) for t in inputs(3000, 16))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(functional.softmax_focal_loss(pred, labels))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)
