"""FusedEqualizedFocalLoss over iterations: what its buffers gather, and when, against the definition in float64."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from focal_plugin.losses import FusedEqualizedFocalLoss
from tests.losses.iterations import C, check_gathered, check_iterations, levels
from tests.processes import side_by_side


def step(loss, iteration, upstream=1.0, **kwargs):
    """One iteration: the forwards of all levels, then one backward; (losses, gradients)."""
    inputs = [(pred.requires_grad_(), labels, weight) for pred, labels, weight in levels(iteration, **kwargs)]
    losses = [loss(*each, avg_factor=7.0) for each in inputs]
    (sum(losses) * upstream).backward()
    return torch.stack(losses).detach(), [pred.grad / upstream for pred, _, _ in inputs]


@pytest.mark.compiled
def test_iterations_follow_the_definition(any_backend, device):
    check_iterations(device)


def test_forwards_of_one_iteration_share_their_ratios():
    """Heads call once a level, and all forwards come before the backward."""
    loss = FusedEqualizedFocalLoss(C)
    step(loss, 0)
    before = loss.ratio.clone()
    inputs = [(pred.requires_grad_(), labels, weight) for pred, labels, weight in levels(1)]
    total = 0
    for each in inputs:
        total = total + loss(*each)
        assert torch.equal(loss.ratio, before)
    total.backward()
    assert not torch.equal(loss.ratio, before)


def test_the_scale_of_amp_stays_out():
    plain, scaled = FusedEqualizedFocalLoss(C), FusedEqualizedFocalLoss(C)
    step(plain, 0)
    step(scaled, 0, upstream=1024.0)
    torch.testing.assert_close(scaled.gradients, plain.gradients, rtol=1e-6, atol=0)


def evaluated(loss):
    loss.eval()
    step(loss, 0)


def without_gradients(loss):
    with torch.no_grad():
        for each in levels(0):
            loss(*each)


def forward_only(loss):
    for pred, *rest in levels(0):
        loss(pred.requires_grad_(), *rest)


@pytest.mark.parametrize('use', (evaluated, without_gradients, forward_only))
def test_only_the_backward_of_training_counts(use):
    loss = FusedEqualizedFocalLoss(C)
    use(loss)
    assert (loss.gradients == 0).all() and (loss.ratio == 1).all()


@pytest.mark.parametrize('reentrant', (True, False))
def test_recomputation_does_not_count(reentrant):
    plain, recomputed = FusedEqualizedFocalLoss(C), FusedEqualizedFocalLoss(C)

    def checkpointed(pred, labels, weight, avg_factor):
        return checkpoint(recomputed, pred, labels, weight, avg_factor, use_reentrant=reentrant)

    for iteration in (0, 1):
        step(plain, iteration)
        step(checkpointed, iteration)
    for loss in (plain, recomputed):
        next_iteration = [(pred.requires_grad_(), *rest) for pred, *rest in levels(2)]
        loss(*next_iteration[0])
    torch.testing.assert_close(recomputed.gradients, plain.gradients, rtol=1e-12, atol=0)


def test_a_second_backward_does_not_count():
    loss = FusedEqualizedFocalLoss(C)
    pred, labels, weight = next(levels(0))
    value = loss(pred.requires_grad_(), labels, weight)
    value.backward(retain_graph=True)
    once, first = loss.gradients.clone(), pred.grad.clone()
    value.backward()
    assert torch.equal(loss.gradients, once)
    assert torch.equal(pred.grad, 2 * first)


def test_a_backward_that_fails_does_not_count():
    """Of a batch that ran out of memory, say, and was passed over: the next iterations count as ever."""
    plain, loss = FusedEqualizedFocalLoss(C), FusedEqualizedFocalLoss(C)

    def fail(_):
        raise MemoryError

    pred, *rest = next(levels(5))
    leaf = pred.requires_grad_()
    features = leaf * 1.0
    features.register_hook(fail)
    with pytest.raises(MemoryError):
        loss(features, *rest).backward()
    for iteration in range(2):
        step(loss, iteration), step(plain, iteration)
        assert torch.equal(loss.gradients, plain.gradients) and torch.equal(loss.ratio, plain.ratio)


def test_a_checkpoint_continues():
    loss = FusedEqualizedFocalLoss(C)
    step(loss, 0)
    saved = copy.deepcopy(loss.state_dict())
    assert set(saved) == {'gradients'}
    resumed = FusedEqualizedFocalLoss(C)
    resumed.load_state_dict(saved)
    for one, other in zip(step(loss, 1), step(resumed, 1), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert torch.equal(loss.gradients, resumed.gradients)


def test_a_nan_does_not_stay():
    loss = FusedEqualizedFocalLoss(C)
    pred, labels, weight = next(levels(0))
    pred[3] = float('nan')
    loss(pred.requires_grad_(), labels, weight).backward()
    assert loss.gradients.isfinite().all() and loss.ratio.isfinite().all()


@pytest.mark.compiled
@pytest.mark.parametrize('layout', ('an NCHW map', 'a dense target', 'ignored rows', 'more classes than a tile'))
def test_gathered_in_every_layout(any_backend, device, layout):
    check_gathered(device, layout)


@pytest.mark.parametrize(
    'arguments, error, message',
    (
        (dict(), TypeError, 'needs num_classes'),
        (dict(num_classes=0), ValueError, 'num_classes must be at least 1, got 0'),
        (dict(num_classes=5.0), TypeError, 'num_classes must be a whole number, got 5.0'),
        (dict(num_classes=5, ratio=1.0), TypeError, "no argument 'ratio'"),
        (dict(num_classes=5, gamma=0), ValueError, 'gamma must be above 0'),
    ),
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        FusedEqualizedFocalLoss(**arguments)


def test_another_number_of_classes():
    pred, labels, _ = next(levels(0))
    with pytest.raises(ValueError, match='num_classes=80, the logits have 5 classes'):
        FusedEqualizedFocalLoss(80)(pred, labels)


PROCESS = """
import sys, torch, torch.distributed as dist
from tests.losses.iterations import C, levels
from focal_plugin.losses import FusedEqualizedFocalLoss
rank, rendezvous, out = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=2)
loss = FusedEqualizedFocalLoss(C)
for iteration in range(3):
    inputs = [(p[rank::2].contiguous().requires_grad_(), y[rank::2], w[rank::2]) for p, y, w in levels(iteration)]
    sum(loss(*each, avg_factor=7.0) for each in inputs).backward()
torch.save((loss.gradients, loss.ratio, inputs[0][0].grad), out)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    outs = [tmp_path / f'{rank}.pt' for rank in (0, 1)]
    side_by_side(['-c', PROCESS, rank, tmp_path / 'rendezvous', out] for rank, out in enumerate(outs))
    joined = FusedEqualizedFocalLoss(C)
    for iteration in range(3):
        _, (grad, _) = step(joined, iteration)
    for rank in (0, 1):
        gradients, ratio, its_grad = torch.load(outs[rank])
        torch.testing.assert_close(gradients, joined.gradients, rtol=1e-9, atol=0)
        torch.testing.assert_close(ratio, joined.ratio, rtol=1e-6, atol=0)
        torch.testing.assert_close(its_grad, grad[rank::2], rtol=1e-6, atol=0)
