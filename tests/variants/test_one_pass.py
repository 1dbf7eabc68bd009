"""The sum of a loss and its gradient by one kernel, as a head with cut=True asks for them."""

import pytest
import torch

from focal_plugin import backend
from focal_plugin.ops import library
from tests.kernels.problems import focal_problem
from tests.oracle.check_variants import ELEMENTWISE, check_in_one_pass, target_of
from tests.oracle.inputs import LAYOUTS, C, N, generator, labels, predictions
from tests.variants import VARIANTS


@pytest.mark.compiled
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('make', LAYOUTS.values(), ids=LAYOUTS)
def test_sum_and_gradient_of_logits_that_are_not_contiguous(any_backend, device, name, make, dtype):
    """But for float16, whose gradients underflow before the loss scale is known."""
    if any_backend == 'torch':
        pytest.skip('plain PyTorch has no kernels')
    pred = make()
    pred = torch.empty_strided(pred.shape, pred.stride(), dtype=dtype).copy_(pred)
    arguments = VARIANTS[name].arguments(C) | {'reduction': 'mean', 'avg_factor': torch.tensor([13.5])}
    weight = torch.rand(pred.shape[:-1], generator=generator(3))
    check_in_one_pass(name, device, pred, target_of(name, pred.shape), weight, **arguments)


@pytest.mark.skipif(not backend.HAS_NATIVE, reason='the native kernel was not built')
def test_a_score_rounded_to_above_1_is_clamped_before_the_logits_are_overwritten():
    pred, target, score = predictions(N, C), labels(N), torch.rand(N, generator=generator(4))
    score[target < C] = 1 + torch.finfo(torch.float32).eps
    problem = focal_problem(pred, target, 'native', score=score, variant='quality_focal', parameters=[2.0])
    value, grad = library.forward_and_backward(problem)
    again, over = library.forward_and_backward(problem, in_place=True)
    assert over is pred and torch.equal(again, value) and torch.equal(over, grad)
