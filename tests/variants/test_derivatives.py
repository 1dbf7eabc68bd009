"""Derivatives of the sigmoid variants in float64, once and twice, by logits, weights and scores."""

import pytest
import torch

from focal_plugin import functional
from tests.oracle.check_variants import ELEMENTWISE
from tests.oracle.inputs import C, generator, labels, predictions
from tests.variants import VARIANTS


@pytest.mark.parametrize('name', [name for name in ELEMENTWISE if not VARIANTS[name].detaches])
def test_gradcheck_in_float64(name):
    """Once and twice; by the weights too, which the torch backend serves."""
    parameters = VARIANTS[name].arguments(C)
    pred = predictions(6, C).double().requires_grad_()
    weight = torch.rand(6, 1, generator=generator(3)).double().requires_grad_()

    def loss(pred, weight=None):
        return functional.FUNCTIONS[name](pred, labels(6), weight, **parameters, **VARIANTS[name].of_logits)

    assert torch.autograd.gradcheck(loss, (pred, weight))
    assert torch.autograd.gradgradcheck(loss, pred)


@pytest.mark.parametrize('name', ('quality_focal', 'matchability_aware', 'position_supervised'))
def test_gradient_of_the_scores(name):
    score = (torch.rand(6, generator=generator()) * 0.8 + 0.1).double().requires_grad_()
    pred, parameters = predictions(6, C).double(), VARIANTS[name].arguments(C)
    assert torch.autograd.gradcheck(lambda s: functional.FUNCTIONS[name](pred, (labels(6), s), **parameters), score)
