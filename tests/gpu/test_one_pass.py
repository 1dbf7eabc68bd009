"""The sum and its gradient by one kernel, of the maps that a head with cut=True computes a chunk at a time.

test_any_two.py has what any call may have.
"""

import collections

import pytest
import torch

from focal_plugin import functional, use_backend
from focal_plugin.kernels.layout import layout_of
from focal_plugin.ops import cut, library
from tests.gpu import driver, nvrtc
from tests.gpu.memory import Global
from tests.kernels.problems import focal_problem
from tests.oracle.check_variants import check_in_one_pass
from tests.oracle.inputs import labels, predictions
from tests.variants import VARIANTS

slow = lambda each: pytest.param(each, marks=pytest.mark.slow)  # noqa: E731
INSTALL = {'triton': driver.install, 'cuda': nvrtc.install}
INF = float('inf')


@pytest.fixture(
    params=(pytest.param('triton', marks=driver.needs_compiler), pytest.param('cuda', marks=nvrtc.needs_nvrtc))
)
def backend(request):
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def launches(backend, monkeypatch):
    """The backend's launches, in a stand-in for a GPU."""
    return INSTALL[backend](monkeypatch, 90).launches


def maps(batch: int, anchors: int, classes: int, height: int, width: int, dtype=torch.float32) -> torch.Tensor:
    """Logits (batch, height, width, anchors, classes), as a convolution lays them out."""
    logits = predictions(batch, anchors * classes, height, width).to(dtype)
    return logits.unflatten(1, (anchors, classes)).permute(0, 3, 4, 1, 2)


def check(name: str, pred: torch.Tensor, *given, **arguments) -> None:
    check_in_one_pass(name, 'cpu', pred, *given, **VARIANTS[name].arguments(pred.size(-1)) | arguments)


CHUNKS = {
    'whole anchors, odd planes': (2, 3, 8, 13, 21),
    'some classes of an anchor': (2, 1, 48, 10, 16),
    'few pixels, whose classes several programs share': (1, 1, 112, 2, 3),
}


@pytest.mark.parametrize('chunk', [slow(each) if k else each for k, each in enumerate(CHUNKS.values())], ids=CHUNKS)
@pytest.mark.parametrize('dtype', (torch.bfloat16, slow(torch.float32)), ids=str)
def test_chunks_of_maps(launches, chunk, dtype):
    """Of scored labels with weights, some rows of which are ignored, over an avg_factor that stays on the device."""
    pred = maps(*chunk, dtype)
    shape, target = pred.shape[:-1], labels(*pred.shape[:-1], classes=pred.size(-1))
    pred[target == 0] = float('nan')
    arguments = {'reduction': 'mean', 'avg_factor': torch.tensor([13.5]), 'ignore_index': 0}
    check('quality_focal', pred, (target, torch.rand(shape)), torch.rand(shape), **arguments)


def test_a_thread_per_row(launches):
    """Of few classes, with parameters of their own."""
    pred, target = predictions(150, 3), labels(150, classes=3)
    assert layout_of(focal_problem(pred, target, per_class_parameters=torch.rand(3, 3)), pred).narrow
    check('focal', pred, target, torch.rand(150), reduction='mean', alpha=[0.2, 0.5, 0.7])


@pytest.mark.parametrize('label', (0, 1))
@pytest.mark.parametrize('alpha', (0.25, 1.0))
def test_a_loss_beyond_where_its_derivative_is_clamped(launches, label, alpha):
    """The derivative is that of a smaller logit, the loss is not; alpha = 1 silences the negatives."""
    for logit in (INF, -INF, 1e4, -1e4, 87.4, -87.4):
        check('focal', torch.tensor([[logit]]), torch.tensor([label]), alpha=alpha, reduction='sum')


def test_a_wrong_label_gives_nan(backend, launches):
    """To its row's gradient and to the sum, and to no other row."""
    pred, target = maps(1, 2, 8, 3, 8), torch.full((1, 3, 8, 2), 8)
    target[0, 1, 2, 1] = 9
    value, grad = library.forward_and_backward(focal_problem(pred, target, backend))
    assert value.isnan() and torch.equal(grad.isnan().all(-1), target == 9) and grad.isnan().sum() == 8


class Users:
    """The warps that read and write the logits and gradients of each 16 bytes, while it is Global.watch."""

    def __init__(self):
        self.readers, self.writers = (collections.defaultdict(set) for _ in range(2))

    def __call__(self, memory, name, addresses, blocks, warps):
        for address, *warp in zip(addresses.tolist(), blocks.tolist(), warps.tolist(), strict=True):
            region = next(each for each in memory.regions if each.contains(address))
            if region.name.removesuffix('_ptr') in ('x', 'out'):
                users = self.readers if name == 'ld' else self.writers
                users[(address - region.base) // 16].add(tuple(warp))


def test_a_gradient_is_written_in_place_where_no_other_warp_reads_the_logit(backend, launches, monkeypatch):
    pred = maps(1, 2, 16, 8, 16)
    problem = focal_problem(pred, torch.arange(256).view(pred.shape[:-1]) % 16, backend)
    users = Users()
    monkeypatch.setattr(Global, 'watch', users)
    library.forward_and_backward(problem)
    assert users.writers.keys() == users.readers.keys() and len(users.writers) == pred.numel() / 4
    is_safe = all(users.readers[place] == writers for place, writers in users.writers.items())
    assert is_safe == library.writes_in_place(problem)


TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


@pytest.mark.parametrize('dtype', [slow(each) if k else each for k, each in enumerate(TOLERANCES)], ids=str)
def test_a_convolution_and_its_loss(backend, launches, dtype):
    """Two launches a level and chunk; in float16, whose gradients wait for the loss scale, one more in the backward."""
    anchors, classes, sizes = 2, 8, ((6, 8), (3, 4))
    given = [torch.randn(anchors * classes, 4, 3, 3) / 6, torch.randn(anchors * classes)]
    given += [torch.randn(2, 4, *size) for size in sizes]
    tensors = [each.to(dtype).requires_grad_() for each in given]
    exact = [each.detach().double().requires_grad_() for each in tensors]
    problems, losses = [], []
    for size, features in zip(sizes, exact[2:], strict=True):
        target = labels(2, *size, anchors, classes=classes)
        pred = torch.empty((), dtype=dtype).expand(*target.shape, classes)
        problems.append(focal_problem(pred, target, backend, avg_factor=torch.tensor(7.0)))
        logits = torch.conv2d(features, *exact[:2], padding=1).unflatten(1, (anchors, classes)).permute(0, 3, 4, 1, 2)
        with use_backend('torch'):
            losses.append(functional.sigmoid_focal_loss(logits, target, avg_factor=7.0))
    levels, owner = [cut.Level(k, each) for k, each in enumerate(problems)], cut.Owner('a test', 'leave it out')
    whole = cut.Cut(cut.Convolution((1, 1), (1, 1), (1, 1)), levels, 3000, None, owner)
    chunks = [len(whole.chunks_of(level, tensors[0])) for level in levels]
    assert chunks[0] > chunks[1] > 1
    loss = cut.total_of(whole, *tensors[:2], tensors[2:])
    (loss * 3).backward()
    (sum(losses) * 3).backward()
    assert len(launches) == (3 if dtype == torch.float16 else 2) * sum(chunks)
    for found, expected in [(loss, sum(losses)), *((a.grad, b.grad) for a, b in zip(tensors, exact, strict=True))]:
        error = (found.double() - expected).abs().max() / expected.abs().max()
        assert error <= TOLERANCES[dtype]
