"""FusedEqualizedFocalLoss over iterations: what its buffers gather, and when, against the definition in float64."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import focal_plugin
from focal_plugin.losses import FusedEqualizedFocalLoss
from tests import oracle

N, C, GAMMA, ALPHA, SCALE = 60, 5, 2.0, 0.25, 8.0


def levels(iteration, rows=(N, N // 4)):
    """(pred, labels, weight) of each level of a head; class 4 is never a positive, class 3 seldom."""
    generator = torch.Generator().manual_seed(iteration)
    for n in rows:
        pred = torch.randn(n, C, generator=generator) * 2 - 1
        labels = torch.tensor([0, 1, 2, 0, C, C, C, 1, C, C])[torch.arange(n) % 10]
        labels[7] = 3
        yield pred, labels, torch.rand(n, generator=generator) + 0.5


class Definition:
    """The loss as arXiv 2201.02593 has it, a matrix of C columns at a time."""

    def __init__(self):
        self.gradients, self.gathered = torch.zeros(2, 2, C, dtype=torch.float64)

    @property
    def ratio(self):
        positive, negative = self.gradients
        return torch.where(positive + negative == 0, 1.0, (positive / negative).clamp(0, 1))

    def __call__(self, pred, labels, weight, avg_factor):
        """(loss, gradient), and the gradient is gathered."""
        exponent = GAMMA + SCALE * (1 - self.ratio)
        point = oracle.focal(pred.double(), oracle.dense_target(labels, C), exponent.numpy(), ALPHA)
        factor = (exponent / GAMMA) * weight[:, None].double() / (avg_factor + oracle.EPS)
        grad = torch.from_numpy(point.grad) * factor
        is_positive = torch.from_numpy(oracle.dense_target(labels, C)) == 1
        self.gathered[0] += (grad.abs() * is_positive).sum(0)
        self.gathered[1] += (grad.abs() * ~is_positive).sum(0)
        return (torch.from_numpy(point.value) * factor).sum(), grad

    def end(self):
        self.gradients += self.gathered
        self.gathered.zero_()


def step(loss, iteration, upstream=1.0, **kwargs):
    """One iteration: the forwards of all levels, then one backward; (losses, gradients)."""
    inputs = [(pred.requires_grad_(), labels, weight) for pred, labels, weight in levels(iteration, **kwargs)]
    losses = [loss(*each, avg_factor=7.0) for each in inputs]
    (sum(losses) * upstream).backward()
    return torch.stack(losses).detach(), [pred.grad / upstream for pred, _, _ in inputs]


@pytest.mark.compiled
def test_iterations_follow_the_definition(any_backend, device):
    loss, exact = FusedEqualizedFocalLoss(C).to(device), Definition()
    for iteration in range(4):
        expected = [exact(pred, labels, weight, 7.0) for pred, labels, weight in levels(iteration)]
        exact.end()
        inputs = [
            (pred.to(device).requires_grad_(), labels.to(device), weight.to(device))
            for pred, labels, weight in levels(iteration)
        ]
        losses = [loss(*each, avg_factor=7.0) for each in inputs]
        sum(losses).backward()
        for (pred, _, _), value, (exact_value, exact_grad) in zip(inputs, losses, expected, strict=True):
            torch.testing.assert_close(value.detach().cpu().double(), exact_value, rtol=1e-5, atol=0)
            torch.testing.assert_close(pred.grad.cpu().double(), exact_grad, rtol=2e-5, atol=1e-12)
        torch.testing.assert_close(loss.gradients.cpu(), exact.gradients, rtol=1e-5, atol=0)
        torch.testing.assert_close(loss.ratio.cpu().double(), exact.ratio, rtol=1e-5, atol=0)
    assert loss.ratio[4] == 0 and 0 < loss.ratio[3] < loss.ratio[0]


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
    """Against the gradients themselves, which other tests hold to the oracle."""
    generator = torch.Generator().manual_seed(0)
    classes = 4100 if layout == 'more classes than a tile' else 9
    pred = torch.randn(2, 5, 7, classes, generator=generator)
    labels = torch.randint(0, classes + 1, (2, 5, 7), generator=generator)
    dense = torch.nn.functional.one_hot(labels, classes + 1)[..., :-1]
    if layout == 'an NCHW map':
        pred = pred.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    target = dense.float() * 0.6 if layout == 'a dense target' else labels
    ignored = {'ignore_index': 2} if layout == 'ignored rows' else {}
    statistics = torch.zeros(2, classes, dtype=torch.float64, device=device)
    leaf = pred.to(device).requires_grad_()
    loss = focal_plugin.functional.equalized_focal_loss(
        leaf, target.to(device), reduction='sum', ratio=torch.rand(classes, generator=generator),
        statistics=statistics, **ignored,
    )  # fmt: skip
    loss.backward(torch.tensor(3.0, device=device))
    size = leaf.grad.cpu().double().abs() / 3
    expected = torch.stack([(size * part).reshape(-1, classes).sum(0) for part in (dense, 1 - dense)])
    torch.testing.assert_close(statistics.cpu(), expected, rtol=1e-5, atol=1e-12)


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
import os, sys, torch, torch.distributed as dist
from tests.losses import test_equalized_focal as t
from focal_plugin.losses import FusedEqualizedFocalLoss
dist.init_process_group('gloo')
rank = dist.get_rank()
loss = FusedEqualizedFocalLoss(t.C)
for iteration in range(3):
    inputs = [(p[rank::2].contiguous().requires_grad_(), y[rank::2], w[rank::2]) for p, y, w in t.levels(iteration)]
    sum(loss(*each, avg_factor=7.0) for each in inputs).backward()
torch.save((loss.gradients, loss.ratio, inputs[0][0].grad), os.path.join(sys.argv[1], f'{rank}.pt'))
dist.destroy_process_group()
"""


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=0', '--rdzv_backend=c10d',
         '--rdzv_endpoint=localhost:0', script(tmp_path), tmp_path],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    joined = FusedEqualizedFocalLoss(C)
    for iteration in range(3):
        _, (grad, _) = step(joined, iteration)
    for rank in (0, 1):
        gradients, ratio, own = torch.load(tmp_path / f'{rank}.pt')
        torch.testing.assert_close(gradients, joined.gradients, rtol=1e-9, atol=0)
        torch.testing.assert_close(ratio, joined.ratio, rtol=1e-6, atol=0)
        torch.testing.assert_close(own, grad[rank::2], rtol=1e-6, atol=0)


def script(folder: Path) -> Path:
    path = folder / 'process.py'
    path.write_text(PROCESS)
    return path
