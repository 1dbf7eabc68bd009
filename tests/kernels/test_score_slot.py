"""The score slot of the families with a loss whose public function has none: focal, at soft positives."""

import pytest
import torch

from focal_plugin.math import SPECS
from focal_plugin.ops.autograd import loss_of
from tests import oracle
from tests.kernels.problems import focal_problem


@pytest.mark.parametrize('layout', ('rows', 'an NCHW map'))
def test_a_score_is_the_target_of_its_positive(any_backend, device, layout):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(2, 6, 9, 5, generator=generator)
    if layout == 'an NCHW map':
        pred = pred.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    labels = torch.randint(0, 6, (2, 6, 9), generator=generator)
    score = torch.rand(2, 6, 9, generator=generator)
    leaf = pred.to(device).requires_grad_()
    parameters = list(SPECS['focal'].pack(1.5, 0.25))
    changed = {'score': score.to(device), 'parameters': parameters, 'scale': 0.5}
    loss = loss_of(focal_problem(leaf, labels.to(device), any_backend, **changed))
    loss.backward()
    dense = torch.from_numpy(oracle.dense_target(labels, 5)) * score[..., None]
    exact = oracle.sigmoid_focal_loss(pred, dense, gamma=1.5, reduction='sum', upstream=0.5)
    oracle.assert_accurate(loss.detach().cpu(), exact.value * 0.5, exact.value_terms)
    oracle.assert_accurate(leaf.grad.cpu(), exact.grad, exact.grad_terms, exact.through_p)
