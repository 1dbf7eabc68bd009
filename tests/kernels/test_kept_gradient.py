"""The gradient that a forward on a CPU leaves behind lives as the gradient of a loss does."""

import gc

import pytest
import torch
import torch.utils.checkpoint

import focal_plugin
from focal_plugin import functional
from tests.kernels.one_pass import KEPT, C, N, assert_same, labels, logits, one_pass, two_passes

pytestmark = pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')


@pytest.fixture(autouse=True)
def native():
    with focal_plugin.use_backend('native'):
        yield


@pytest.mark.parametrize('gamma', (2.0, [0.5, 1.0, 2.0, 5.0, 0.0, 1.5, 9.0]), ids=('a number', 'one per class'))
def test_backward_twice_under_a_factor(gamma):
    """The first takes the kept gradient and multiplies it in place; the second must not find it multiplied."""
    pred = logits(N, C).requires_grad_()
    loss = functional.sigmoid_focal_loss(pred, labels(C), gamma=gamma, avg_factor=3.0)
    (plain,) = torch.autograd.grad(functional.sigmoid_focal_loss(pred, labels(C), gamma=gamma, avg_factor=3.0), pred)
    for factor in (0.3, 0.3, 4.0):
        (grad,) = torch.autograd.grad(factor * loss, pred, retain_graph=True)
        assert torch.equal(grad, factor * plain)
    (grad,) = torch.autograd.grad(loss, pred)
    assert torch.equal(grad, plain)


def test_two_leaves_that_accumulate_a_kept_gradient():
    """p.grad may be the kept gradient's memory; what is added to it must not reach the graph."""
    pred = logits(N, C).requires_grad_()
    loss = functional.sigmoid_focal_loss(pred, labels(C))
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        if times == 1:
            plain = pred.grad.clone()
    torch.testing.assert_close(pred.grad, 3 * plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize('backend', ('native', 'torch'))
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16, torch.float16))
@pytest.mark.parametrize('kind', ('focal', 'softmax', 'with statistics'))
def test_the_same_bits_for_any_number_of_threads_and_backwards(backend, dtype, kind):
    pred, target = logits(40_000, C).to(dtype), torch.randint(0, C, (40_000,))
    function = {'focal': functional.sigmoid_focal_loss, 'softmax': functional.softmax_focal_loss}.get(
        kind, functional.equalized_focal_loss
    )
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            arguments = {'statistics': torch.zeros(2, C, dtype=torch.float64)} if kind == 'with statistics' else {}
            leaf = pred.clone().requires_grad_()
            with focal_plugin.use_backend(backend):
                loss = function(leaf, target, avg_factor=700.3, **arguments)
                grads = [torch.autograd.grad(0.3 * loss, leaf, retain_graph=True)[0] for _ in range(2)]
                with torch.no_grad():
                    alone = function(leaf, target, avg_factor=700.3)
            results.append([loss.detach(), alone, *grads, *arguments.values()])
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
    value, alone, first, second, *_ = results[0]
    assert torch.equal(value, alone) and torch.equal(first, second)


def test_logits_changed_before_the_backward_are_noticed():
    pred = logits(N, C).requires_grad_()
    changed = pred * 1
    loss = functional.sigmoid_focal_loss(changed, labels(C))
    changed.add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize('use_reentrant', (False, True))
def test_under_activation_checkpointing(use_reentrant):
    pred = logits(N, C)
    plain, checkpointed = (pred.clone().requires_grad_() for _ in range(2))

    def call(leaf):
        return functional.sigmoid_focal_loss(leaf * 2, labels(C))

    call(plain).backward()
    torch.utils.checkpoint.checkpoint(call, checkpointed, use_reentrant=use_reentrant).backward()
    assert torch.equal(checkpointed.grad, plain.grad)


def test_what_a_forward_keeps_is_seen_by_the_hooks_of_saved_tensors():
    """Activation checkpointing without reentrance drops what the hooks see, and offloading moves it."""
    seen = []
    leaf = logits(N, C).requires_grad_()

    def pack(tensor):
        seen.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = functional.sigmoid_focal_loss(leaf, labels(C))
    loss.backward()
    assert leaf.grad.untyped_storage().data_ptr() in seen


def test_a_checkpointed_loss_keeps_no_gradient_between_the_passes():
    leaf, target = logits(N, C).requires_grad_(), labels(C)
    loss = torch.utils.checkpoint.checkpoint(
        lambda x: functional.sigmoid_focal_loss(x * 2, target), leaf, use_reentrant=False
    )
    size = leaf.numel() * 4
    alive = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.untyped_storage().nbytes() == size]
    assert {t.untyped_storage().data_ptr() for t in alive} == {leaf.untyped_storage().data_ptr()}
    loss.backward()
    assert leaf.grad is not None


@pytest.mark.parametrize('factor', (1.0, 0.5, 0.25, 1 / 3, 0.0, -0.5, 3.0, 65536.0))
def test_a_kept_bf16_gradient_is_rounded_once(factor, monkeypatch):
    """Under every upstream gradient it is the backward's own, also where 65536 lifts subnormals to normal numbers.

    Halved subnormals alone lose a bit more, and may be one unit off.
    """
    pred = torch.cat([logits(N - 100, C), torch.linspace(-50, -25, 100)[:, None].expand(100, C)]).bfloat16()

    def call(leaf):
        return factor * functional.sigmoid_focal_loss(leaf, labels(C), reduction='sum')

    seen, wanted = one_pass(call, pred, monkeypatch)[1], two_passes(call, pred)[1]
    torch.testing.assert_close(seen, wanted, rtol=0, atol=2**-133 if factor in (0.5, 0.25) else 0)
    is_normal = wanted.abs() > 2**-126
    assert_same(seen[is_normal], wanted[is_normal])


def test_half_gradients_wait_for_the_loss_scale():
    """At 2^-24 and below float16 has no number left: kept without the scale of AMP, this gradient would be 0."""
    pred = torch.zeros(4, 1, dtype=torch.float16, requires_grad=True)
    loss = functional.sigmoid_focal_loss(pred, torch.zeros(4, dtype=torch.int64), avg_factor=1e8)
    (loss * 65536).backward()
    exact = torch.zeros(4, 1, requires_grad=True)
    (functional.sigmoid_focal_loss(exact, torch.zeros(4, dtype=torch.int64), avg_factor=1e8) * 65536).backward()
    torch.testing.assert_close(pred.grad.float(), exact.grad, rtol=2**-8, atol=0)


@KEPT
def test_gathered_gradients_are_counted_by_the_first_backward(dtype):
    """Not by the forward, which has them from its one pass, nor by a second backward, nor times its upstream gradient."""
    pred, counts = logits(N, C).to(dtype).requires_grad_(), []
    for factor in (1.0, 0.25):
        counts.append(torch.zeros(2, C, dtype=torch.float64))
        loss = functional.equalized_focal_loss(pred, labels(C), statistics=counts[-1])
        assert counts[-1].count_nonzero() == 0
        (factor * loss).backward(retain_graph=True)
        once = counts[-1].clone()
        assert once.count_nonzero() == 2 * C
        loss.backward()
        assert torch.equal(counts[-1], once)
    assert torch.equal(*counts)
