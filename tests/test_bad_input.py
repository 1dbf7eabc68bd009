"""What functional.sigmoid_focal_loss does not take, on every backend: each mistake with its remedy."""

import pytest
import torch

import focal_plugin
from focal_plugin import backend, functional
from tests.conftest import ON_A_GPU
from tests.oracle.inputs import C, N, labels, predictions

BAD = {
    'a label above C': (dict(target=torch.tensor([0, C + 1])), ValueError, r'label 6 is outside \[0, 5\].*num_classes'),
    'a negative label': (dict(target=torch.tensor([-1, 0])), ValueError, r'label -1 .*ignore_index=-1'),
    'float labels': (dict(target=torch.tensor([0.0, 1.0])), TypeError, r'target\.long\(\)'),
    'too few labels': (dict(target=torch.tensor([0])), ValueError, r'must have the shape \(2,\).*got \(1,\)'),
    'a dense target of another shape': (dict(target=torch.zeros(2, 3)), ValueError, r'got \(2, 3\)'),
    'a bare weight per class': (dict(weight=torch.ones(C)), ValueError, r'weight of shape \(5,\).*\(1, 5\)'),
    'an unknown reduction': (dict(reduction='avg'), ValueError, r"Invalid reduction 'avg'"),
    'avg_factor with sum': (dict(reduction='sum', avg_factor=1.0), ValueError, r"reduction='mean'"),
    'avg_factor of two': (dict(avg_factor=torch.ones(2)), ValueError, r'shape \(\) or \(1,\), got \(2,\)'),
    'avg_factor as text': (dict(avg_factor='3'), TypeError, r'avg_factor must be a number'),
    'negative gamma': (dict(gamma=-0.5), ValueError, r'gamma must be at least 0, got -0.5'),
    'infinite gamma': (dict(gamma=float('inf')), ValueError, r'gamma must be at least 0, got inf'),
    'gamma as text': (dict(gamma='2'), TypeError, r"gamma must be a number.*got '2'"),
    'alpha above 1': (dict(alpha=1.5), ValueError, r'alpha must be in \[0, 1\], got 1.5'),
    'a list of alphas too short': (dict(alpha=[0.1, 0.2]), ValueError, r'alpha .*5 classes.*\(2,\)'),
    'an alpha in a list above 1': (dict(alpha=[0.1, 0.2, 0.3, 0.4, 1.1]), ValueError, r'alpha must be in'),
    'integer logits': (dict(pred=torch.zeros(2, C, dtype=torch.long)), TypeError, r'pred\.float\(\)'),
    'logits as a list': (dict(pred=[[0.0]]), TypeError, r'pred must be a tensor'),
    'logits of no dimension': (dict(pred=torch.tensor(1.0)), ValueError, r'0-d'),
    'ignore_index with a dense target': (dict(target=torch.zeros(2, C), ignore_index=3), ValueError, r'needs labels'),
    'a probability above 1': (dict(pred=torch.full((2, C), 1.5), activated=True), ValueError, r'probabilities in \[0, 1\]'),
    'a target elsewhere': (dict(target=torch.zeros(2, device='meta').long()), ValueError, r'target\.to\(pred\.device\)'),
    'a target as a list': (dict(target=[0, 1]), TypeError, r'target must be a tensor'),
}  # fmt: skip


@pytest.mark.parametrize('change, error, message', BAD.values(), ids=BAD)
def test_bad_input(any_backend, change, error, message):
    arguments = dict(pred=torch.zeros(2, C), target=torch.zeros(2, dtype=torch.long), weight=None) | change
    pred, target, weight = (arguments.pop(name) for name in ('pred', 'target', 'weight'))
    if any_backend in ON_A_GPU and message.startswith('label '):
        pytest.skip('on a GPU looking at a label would synchronise: NaN instead, see below')
    if any_backend in ON_A_GPU and not backend.INTERPRETING and message.startswith('probabilities'):
        pytest.skip('on a GPU looking at a probability would synchronise')
    with pytest.raises(error, match=message):
        functional.sigmoid_focal_loss(pred, target, weight, **arguments)


@pytest.mark.triton
@pytest.mark.parametrize('reduction', ('none', 'mean'))
def test_a_bad_label_shows_as_nan_where_looking_would_synchronise(any_backend, device, reduction):
    if any_backend not in ON_A_GPU:
        pytest.skip('the CPU backends raise')
    target = labels(N)
    target[3], target[7] = C + 1, -1
    leaf = predictions(N, C).to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(leaf, target.to(device), reduction=reduction)
    loss.sum().backward()
    bad = torch.zeros(N, dtype=torch.bool)
    bad[[3, 7]] = True
    assert (leaf.grad.isnan().all(1).cpu() == bad).all()
    assert (leaf.grad.isnan().any(1).cpu() == bad).all()
    assert loss.isnan().all() if reduction == 'mean' else (loss.isnan().all(1).cpu() == bad).all()


def test_unknown_and_impossible_backends():
    with pytest.raises(ValueError, match=r"unknown backend 'gpu'.*'native'"), focal_plugin.use_backend('gpu'):
        pass
    with (
        focal_plugin.use_backend('native'),
        pytest.raises(ValueError, match=r"'native' can't take logits of torch.float64"),
    ):
        functional.sigmoid_focal_loss(torch.zeros(2, C).double(), torch.zeros(2, dtype=torch.long))
