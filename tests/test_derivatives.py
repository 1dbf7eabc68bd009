"""Derivatives of functional.sigmoid_focal_loss: twice, of other arguments, and the same bits each time."""

import pytest
import torch

import focal_plugin
from focal_plugin import functional
from tests.oracle.inputs import C, N, generator, labels, predictions


def test_backward_twice_gives_the_same(device):
    pred = predictions(N, C).to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(pred, labels(N).to(device), avg_factor=3.0)
    first, second = (torch.autograd.grad(loss, pred, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_double_backward(device):
    """Through create_graph=True: the derivative of the closed-form gradient, by finite differences in float64."""
    torch.manual_seed(0)
    pred, target = predictions(6, C).double().requires_grad_(), labels(6)
    with focal_plugin.use_backend('auto'):
        assert torch.autograd.gradgradcheck(lambda x: functional.sigmoid_focal_loss(x, target, gamma=1.5), pred)
    single = predictions(6, C).to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(single, target.to(device), gamma=1.5)
    (grad,) = torch.autograd.grad(loss, single, create_graph=True)
    (second,) = torch.autograd.grad(grad.pow(2).sum(), single)
    reference = pred.detach().requires_grad_()
    with focal_plugin.use_backend('torch'):
        loss = functional.sigmoid_focal_loss(reference, target, gamma=1.5)
    (grad,) = torch.autograd.grad(loss, reference, create_graph=True)
    (exact,) = torch.autograd.grad(grad.pow(2).sum(), reference)
    torch.testing.assert_close(second.cpu().double(), exact, rtol=1e-4, atol=1e-9)


def test_gradcheck_in_float64():
    for target in (labels(6), torch.rand(6, C, generator=generator()).double()):
        pred = predictions(6, C).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, t=target: functional.sigmoid_focal_loss(x, t, gamma=1.5), pred)


def test_gradients_of_target_weight_and_avg_factor():
    """mmdet's Python losses give them, so ours do: the torch backend serves."""
    pred = predictions(6, C).double().requires_grad_()
    target = (torch.rand(6, C, generator=generator()) * 0.8 + 0.1).double().requires_grad_()
    weight = torch.rand(6, 1, generator=generator(3)).double().requires_grad_()
    avg_factor = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, y, w, a: functional.sigmoid_focal_loss(x, y, w, avg_factor=a, gamma=1.5),
        (pred, target, weight, avg_factor),
    )
    with focal_plugin.use_backend('native'), pytest.raises(ValueError, match='gives no gradient of target'):
        functional.sigmoid_focal_loss(pred.float(), target.float())


@pytest.mark.compiled
def test_the_same_input_gives_the_same_bits(device):
    pred, target = predictions(4000, 16).to(device), labels(4000, classes=16).to(device)
    first, second = (functional.sigmoid_focal_loss(pred, target) for _ in range(2))
    assert torch.equal(first, second)


def test_any_number_of_threads_gives_the_same_bits():
    pred, target = predictions(20000, 80).requires_grad_(), labels(20000, classes=80)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with focal_plugin.use_backend('native'):
                loss = functional.sigmoid_focal_loss(pred, target)
            results.append((loss.detach(), torch.autograd.grad(loss, pred)[0]))
    finally:
        torch.set_num_threads(before)
    for loss, grad in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(grad, results[0][1])
