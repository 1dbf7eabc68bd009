"""Launches that pass Triton's JIT by hand the kernel what the JIT would, seen through a stand-in for a GPU's driver."""

import itertools

import pytest
import torch

from focal_plugin import backend, functional
from tests.gpu.driver import StandIn, binders, needs_compiler, take_for_a_gpu

pytestmark = needs_compiler


class Driver(StandIn):
    """Kernels are compiled and loaded, and what they are launched with is noted."""

    def __init__(self):
        super().__init__(90)
        self.launches, self.loaded = [], itertools.count(1)

    def launcher_cls(self, source, metadata):
        return lambda x, y, z, stream, function, *rest: self.launches.append((function, (x, y, z), rest[4:]))

    def load_binary(self, name, binary, shared, device):
        return 0, next(self.loaded), 32, 0, 1024


@pytest.fixture
def launches(monkeypatch) -> list[tuple]:
    """(the loaded kernel, the grid, the kernel's arguments) of each launch, CPU tensors taken for a GPU's."""
    driver = Driver()
    take_for_a_gpu(monkeypatch, driver, binders(), relaunches=True)
    return driver.launches


def taken(launches: list[tuple]) -> list[tuple]:
    """The launches, tensors as the addresses they stand for."""
    found = [
        (kernel, grid, [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments])
        for kernel, grid, arguments in launches
    ]
    launches.clear()
    return found


def step(loss, pred, labels, **arguments) -> None:
    with backend.use_backend('triton'):
        loss(pred, labels, **arguments).sum().backward()


CALLS = {
    'tiles, and flat': (functional.sigmoid_focal_loss, (300, 80), {}),
    'a value per logit': (functional.sigmoid_focal_loss, (300, 80), {'reduction': 'none'}),
    'flat both ways': (functional.sigmoid_focal_loss, (300, 365), {'ignore_index': 7}),
    'a thread per row': (functional.sigmoid_focal_loss, (300, 3), {}),
    'a softmax': (functional.softmax_focal_loss, (300, 80), {}),
    'over a tensor': (functional.sigmoid_focal_loss, (300, 80), {'avg_factor': torch.tensor(3.0)}),
    'a number per class': (functional.sigmoid_focal_loss, (300, 80), {'alpha': torch.full((80,), 0.25)}),
}


@pytest.mark.parametrize(('loss', 'shape', 'arguments'), CALLS.values(), ids=CALLS)
def test_the_second_launch_hands_over_what_the_first_did(launches, loss, shape, arguments):
    pred, labels = torch.randn(shape, requires_grad=True), torch.randint(0, shape[1], shape[:1])
    step(loss, pred, labels, **arguments)
    assert any(isinstance(each, torch.Tensor) for each in launches[0][2])  # by the JIT
    first = taken(launches)
    step(loss, pred, labels, **arguments)
    assert not any(isinstance(each, torch.Tensor) for *_, given in launches for each in given)
    second = taken(launches)
    given = {pred.data_ptr(), labels.data_ptr()}
    for (kernel, grid, one), (kernel_again, grid_again, other) in zip(first, second, strict=True):
        assert (kernel, grid) == (kernel_again, grid_again) and len(one) == len(other)
        for a, b in zip(one, other, strict=True):  # what is written is allocated anew
            assert a == b or (isinstance(a, int) and a > 2**20 and a % 16 == b % 16 == 0 and a not in given)


def test_numbers_that_change_are_handed_over(launches):
    pred, labels = torch.randn(300, 80, requires_grad=True), torch.zeros(300, dtype=torch.int64)
    scales = []
    for avg_factor in (4.0, 8.0, 16.0):
        step(functional.sigmoid_focal_loss, pred, labels, avg_factor=avg_factor)
        kernel, _, arguments = taken(launches)[0]
        scales.append((kernel, next(each for each in arguments if isinstance(each, float))))
    assert scales == [
        (kernel, pytest.approx(1 / n, rel=1e-6)) for (kernel, _), n in zip(scales, (4, 8, 16), strict=True)
    ]
    assert len({kernel for kernel, _ in scales}) == 1


OTHERS = {
    'an address between two multiples of 16': lambda: torch.randn(300 * 80 + 1)[1:].view(300, 80),
    'other strides': lambda: torch.randn(80, 300).t(),
    'another dtype': lambda: torch.randn(300, 80).half(),
}


@pytest.mark.parametrize('other', OTHERS.values(), ids=OTHERS)
def test_logits_that_lie_otherwise_have_a_kernel_of_their_own(launches, other):
    labels = torch.zeros(300, dtype=torch.int64)
    kernels = []
    for pred in (torch.randn(300, 80), other(), torch.randn(300, 80)):
        step(functional.sigmoid_focal_loss, pred.requires_grad_(), labels)
        kernels.append(taken(launches)[0][0])
    assert kernels[0] == kernels[2] != kernels[1]


def test_what_is_kept_is_bounded(launches, monkeypatch):
    from focal_plugin.kernels import remembered
    from focal_plugin.kernels.triton import launches as module

    monkeypatch.setattr(remembered, 'MOST', 5)
    for rows in range(16, 200, 16):
        step(
            functional.sigmoid_focal_loss,
            torch.randn(rows, 80, requires_grad=True),
            torch.zeros(rows, dtype=torch.int64),
        )
        assert len(module._kept) <= 5
