"""The levels of a head that hands over rows: one sum, whose parts the kernels write side by side."""

import pytest
import torch

from focal_plugin import backend
from focal_plugin.losses import FusedEqualizedFocalLoss, FusedFocalLoss, FusedQualityFocalLoss
from focal_plugin.ops.autograd import total_of
from focal_plugin.rows import Rows
from tests.conftest import one_graph
from tests.gpu.driver import install, needs_compiler
from tests.kernels.problems import focal_problem

pytestmark = needs_compiler
C = 20
SIZES = {'P4: planes that 16 bytes divide': (16, 24), 'P5: an odd plane': (9, 13), 'P6: few pixels': (2, 3)}


@pytest.fixture
def driver(monkeypatch):
    return install(monkeypatch, 90)


def maps(dtype: torch.dtype, images: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(images, 3 * C, *size, dtype=dtype).requires_grad_() for size in SIZES.values()]


def targets(levels: list[torch.Tensor], scored: bool):
    rows = sum(level.numel() for level in levels) // C
    labels = torch.where(torch.rand(rows) < 0.1, torch.randint(0, C, (rows,)), C)
    return (labels, torch.rand(rows)) if scored else labels


def joined(loss, levels, target, weight, avg_factor, name):
    with backend.use_backend(name):
        value = loss(Rows(levels, C, isinstance(target, tuple)), target, weight, avg_factor=avg_factor)
        return value.detach(), torch.autograd.grad(value, levels, torch.full_like(value, 0.5))


CASES = {
    'focal': (lambda: FusedFocalLoss(), False),
    'focal with parameters per class': (lambda: FusedFocalLoss(alpha=torch.linspace(0.1, 0.9, C).tolist()), False),
    'quality': (lambda: FusedQualityFocalLoss(), True),
}


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize(('make', 'scored'), CASES.values(), ids=CASES)
def test_the_sum_and_the_gradients_are_those_of_plain_pytorch(driver, make, scored, dtype):
    levels = maps(dtype)
    target, weight = targets(levels, scored), torch.rand(sum(level.numel() for level in levels) // C)
    for avg_factor in (7.0, torch.tensor([7.0])):
        driver.launches.clear()
        value, grads = joined(make(), levels, target, weight, avg_factor, 'triton')
        assert len(driver.launches) == 2 * len(levels) + 1  # one adds the parts of all
        expected, expected_grads = joined(make(), levels, target, weight, avg_factor, 'torch')
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
        for grad, one in zip(grads, expected_grads, strict=True):
            eps = torch.finfo(dtype).eps
            torch.testing.assert_close(grad, one, rtol=2 * eps if dtype != torch.float32 else 2e-5, atol=1e-9)


def test_levels_without_rows_add_nothing(driver):
    levels = [*maps(torch.float32), torch.randn(2, 3 * C, 0, 4, requires_grad=True)]
    target = targets(levels, False)
    value, grads = joined(FusedFocalLoss(), levels, target, None, 3.0, 'triton')
    expected, _ = joined(FusedFocalLoss(), levels[:-1], target, None, 3.0, 'triton')
    assert torch.equal(value, expected) and grads[-1].shape == levels[-1].shape
    empty = [torch.randn(0, 3 * C, 4, 4, requires_grad=True)] * 2
    value, _ = joined(FusedFocalLoss(), empty, targets(empty, False), None, 3.0, 'triton')
    assert value == 0


def test_statistics_are_gathered_once_for_each_level(driver):
    levels, ratios = maps(torch.float32), []
    target = targets(levels, False)
    for name in ('triton', 'torch'):
        loss = FusedEqualizedFocalLoss(C)
        with backend.use_backend(name):
            value = loss(Rows(levels, C), target, None, avg_factor=5.0)
            value.backward(retain_graph=True)
            value.backward()  # of the same loss: it counts no second time
        ratios.append(loss.gradients.clone())
    torch.testing.assert_close(*ratios, rtol=1e-5, atol=1e-12)


def test_second_derivatives_and_gradients_of_weights_are_composed(driver):
    levels = maps(torch.float32, 1)
    target, weight = targets(levels, False), torch.rand(sum(level.numel() for level in levels) // C)
    results = []
    for name in ('triton', 'torch'):
        with backend.use_backend(name):
            value = FusedFocalLoss()(Rows(levels, C), target, weight, avg_factor=5.0)
            grads = torch.autograd.grad(value, levels, create_graph=True)
            results.append(torch.autograd.grad(sum(grad.square().sum() for grad in grads), levels))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-8)


def test_a_level_without_a_gradient_has_no_part_in_second_derivatives(driver):
    levels = maps(torch.float32, 1)
    target, results = targets(levels, False), []
    for name, first in (('triton', levels[0].detach()), ('torch', levels[0])):
        with backend.use_backend(name):
            value = FusedFocalLoss()(Rows([first, *levels[1:]], C), target, avg_factor=5.0)
            grads = torch.autograd.grad(value, levels[1:], create_graph=True)
            results.append(torch.autograd.grad(sum(grad.square().sum() for grad in grads), levels[1:]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-8)


@one_graph
@pytest.mark.parametrize('name', ('native', 'torch'))
def test_a_compiler_traces_the_sum_of_levels(name):
    if name == 'native' and not backend.HAS_NATIVE:
        pytest.skip('the native kernel was not built')
    levels = maps(torch.float32)
    target = targets(levels, False)

    def problem(level: torch.Tensor, labels: torch.Tensor):
        rows = level.unflatten(1, (-1, C)).movedim(2, -1)
        return focal_problem(rows, labels.view(rows.shape[:-1]), name)

    def total(first, second, labels, more_labels):
        return total_of([problem(first, labels), problem(second, more_labels)])

    rows = [level.numel() // C for level in levels]
    given = (*levels[:2], *target[: sum(rows[:2])].split(rows[:2]))
    compiled = torch.compile(total, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*given), total(*given), rtol=1e-6, atol=0)
