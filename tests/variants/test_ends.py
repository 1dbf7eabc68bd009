"""The ends of every loss: infinite logits whose factor is 0, NaN in, what is ignored, exponents and powers that underflow.

A random campaign (test_campaign.py) tries their combinations; here each kind has its example, for every variant that has it.
"""

import math

import pytest
import torch

from focal_plugin import functional
from focal_plugin.math import SPECS
from tests.variants import VARIANTS

INF, NAN = math.inf, math.nan
SCORED = [name for name, variant in VARIANTS.items() if variant.scored]
LABELLED = [name for name, spec in SPECS.items() if spec.form != 'dense' or spec.scored]


def run(function: str, pred, *args, upstream=None, device='cpu', **arguments):
    """(loss, gradient) under an upstream gradient, on the CPU."""
    to = lambda t: tuple(map(to, t)) if isinstance(t, tuple) else t.to(device) if isinstance(t, torch.Tensor) else t  # noqa: E731
    leaf = torch.as_tensor(pred).detach().to(device, copy=True).requires_grad_()
    loss = getattr(functional, function)(leaf, *map(to, args), **{name: to(each) for name, each in arguments.items()})
    loss.backward(torch.ones_like(loss) if upstream is None else to(upstream))
    return loss.detach().cpu(), leaf.grad.cpu()


# loss, its logits, target, the arguments that make a factor 0
SILENCED = {
    'alpha 1 leaves no negative': ('sigmoid_focal_loss', [[INF]], torch.tensor([1]), dict(alpha=1.0)),
    'alpha 0 leaves no positive': ('sigmoid_focal_loss', [[-INF]], torch.tensor([0]), dict(alpha=0.0)),
    'vectors of alpha': ('sigmoid_focal_loss', [[INF, -INF]], torch.tensor([1]), dict(alpha=[1.0, 0.0])),
    'alpha of the star loss': ('sigmoid_focal_star_loss', [[INF]], torch.tensor([1]), dict(alpha=1.0)),
    'alpha of the reduced loss': ('reduced_focal_loss', [[-INF]], torch.tensor([0]), dict(alpha=0.0)),
    'alpha over a softmax': ('softmax_focal_loss', [[-INF, 1.0]], torch.tensor([0]), dict(alpha=0.0)),
    'alpha of qualities': (
        'position_supervised_loss', [[INF]], (torch.tensor([1]), torch.tensor([0.5])), dict(alpha=1.0)
    ),
    'mal_alpha': ('matchability_aware_loss', [[INF]], (torch.tensor([1]), torch.tensor([0.5])), dict(mal_alpha=0.0)),
    'alpha of negatives': ('varifocal_loss', [[INF]], torch.tensor([[0.0]]), dict(alpha=0.0)),
    'the weight of negatives': (
        'gaussian_focal_loss', [[INF]], torch.tensor([[0.0]]), dict(neg_weight=0.0, from_logits=True)
    ),
    'the weight of positives': (
        'gaussian_focal_loss', [[-INF]], torch.tensor([[1.0]]), dict(pos_weight=0.0, from_logits=True)
    ),
}  # fmt: skip


@pytest.mark.parametrize(('function', 'pred', 'target', 'arguments'), SILENCED.values(), ids=SILENCED)
@pytest.mark.parametrize('reduction', ('none', 'sum'))
def test_a_factor_of_zero_silences_an_infinite_logit(device, function, pred, target, arguments, reduction):
    loss, grad = run(function, pred, target, device=device, reduction=reduction, **arguments)
    assert (loss == 0).all() and (grad == 0).all()


@pytest.mark.sampled(interpreted=14)
@pytest.mark.parametrize('name', LABELLED)
@pytest.mark.parametrize('classes', (3, 8), ids=('walked in order', 'in tiles'))
@pytest.mark.parametrize('reduction', ('none', 'sum'))
def test_a_weight_of_zero_silences_an_infinite_logit_but_no_nan(device, name, classes, reduction):
    pred, labels = torch.zeros(3, classes), torch.tensor([0, 1, 0])
    pred[0, 0] = -INF  # its positive
    arguments = VARIANTS[name].required(classes)
    weight = torch.tensor([0.0, 1.0, 1.0])
    function = SPECS[name].function
    loss, grad = run(function, pred, labels, weight, device=device, reduction=reduction, **arguments)
    assert loss.isfinite().all() and (grad[0] == 0).all() and (grad[1:] != 0).any(-1).all()
    pred[0, 0] = NAN
    loss, grad = run(function, pred, labels, weight, device=device, reduction=reduction, **arguments)
    assert loss.isnan().any() and grad[0].isnan().any() and grad[1:].isfinite().all()


def test_the_polynomial_term_stays_where_alpha_is_zero(device):
    loss, _ = run('poly_focal_loss', [[-INF]], torch.tensor([0]), device=device, alpha=0.0, reduction='sum')
    assert loss == 1


@pytest.mark.parametrize('name', SCORED)
@pytest.mark.parametrize('defaults', (True, False), ids=('the defaults', 'an exponent that drops the target'))
@pytest.mark.parametrize('classes', (1, 3, 8))
def test_a_nan_score_or_dense_target_is_nan_in_its_element(device, name, defaults, classes):
    """`y > 0` is false for NaN: a positive would be pushed down."""
    function, arguments = VARIANTS[name].function, {} if defaults else VARIANTS[name].without_target
    pred, labels = torch.zeros(2, classes), torch.tensor([0, classes])
    loss, grad = run(function, pred, (labels, torch.tensor([NAN, 0.5])), device=device, reduction='sum', **arguments)
    assert loss.isnan() and grad[0, 0].isnan() and grad.isnan().sum() == 1
    dense = torch.zeros(2, classes)
    dense[0, 0] = NAN
    loss, grad = run(function, pred, dense, device=device, reduction='sum', **arguments)
    assert loss.isnan() and grad[0, 0].isnan() and grad.isnan().sum() == 1


@pytest.mark.parametrize('name', [name for name, variant in VARIANTS.items() if variant.dense and not variant.scored])
def test_a_nan_dense_target_is_nan(device, name):
    variant = VARIANTS[name]
    arguments = variant.of_logits | ({'gamma': 0.0} if name == 'gaussian_focal' else {})
    loss, grad = run(
        variant.function, [[0.0, 0.0]], torch.tensor([[NAN, 0.5]]), device=device, reduction='none', **arguments
    )
    assert loss.isnan().tolist() == [[True, False]] and grad.isnan().tolist() == [[True, False]]


@pytest.mark.sampled(interpreted=14)
@pytest.mark.parametrize('name', LABELLED)
@pytest.mark.parametrize('weight', (NAN, INF), ids=('weight NaN', 'weight inf'))
@pytest.mark.parametrize('upstream', (NAN, INF), ids=('upstream NaN', 'upstream inf'))
def test_an_ignored_row_is_silent_whatever_it_holds(device, name, weight, upstream):
    spec = SPECS[name]
    pred = torch.tensor([[NAN, INF, -INF], [0.0, 1.0, 2.0]])
    target = torch.tensor([7, 0])
    target = (target, torch.tensor([NAN, 0.5])) if spec.scored else target
    weights = torch.tensor([weight, 1.0])
    arguments = dict(ignore_index=7, device=device, **VARIANTS[name].required(3))
    loss, grad = run(spec.function, pred, target, weights, reduction='sum', **arguments)
    assert loss.isfinite() and (grad[0] == 0).all() and (grad[1] != 0).any()
    shape = (2,) if spec.per_row else (2, 3)
    by_element = torch.ones(shape)
    by_element[0] = upstream
    loss, grad = run(spec.function, pred, target, weights, reduction='none', upstream=by_element, **arguments)
    assert (loss[0] == 0).all() and (grad[0] == 0).all() and grad.isfinite().all()
    _, grad = run(spec.function, pred, target, weights, reduction='sum', upstream=torch.tensor(upstream), **arguments)
    assert (grad[0] == 0).all()


@pytest.mark.parametrize('name', SCORED)
@pytest.mark.parametrize('score', (NAN, INF, -3.0, 7.0))
def test_the_score_of_a_background_row_is_not_looked_at(device, name, score):
    function = VARIANTS[name].function
    target = torch.tensor([2, 0]), torch.tensor([score, 0.5])
    known = torch.tensor([2, 0]), torch.tensor([0.0, 0.5])
    pred = torch.tensor([[0.5, -1.0], [1.0, 0.0]])
    torch.testing.assert_close(
        run(function, pred, target, device=device), run(function, pred, known, device=device), rtol=0, atol=0
    )


def test_a_nan_negative_leaves_the_statistics_of_positives(any_backend, device):
    statistics = torch.zeros(2, 2, dtype=torch.float64, device=device)
    run(
        'equalized_focal_loss', [[0.0, NAN], [0.0, 0.0]], torch.tensor([0, 1]), device=device, statistics=statistics,
        reduction='sum',
    )  # fmt: skip
    assert statistics[0].isfinite().all() and statistics[1].isnan().tolist() == [False, True]


# name -> function, logits or probabilities, target, arguments, the loss
SMALL = {
    'a subnormal probability, exponents of classes': (
        'sigmoid_focal_loss', [[1e-38]], [[0.8]], dict(gamma=[2.0], alpha=None, activated=True),
        -(0.8 * (1 - 1e-38) + 0.2e-38) ** 2 * 0.8 * math.log(1e-38),
    ),
    'a probability of 2e-35 to the power .001': (
        'gaussian_focal_loss', [[-80.0]], [[0.0]], dict(alpha=0.001, from_logits=True), math.exp(-80.08),
    ),
    'a power that underflows over one that does too': (
        'reduced_focal_loss', [[9.0]], [[1.0]], dict(threshold=0.1, gamma=8.0),
        (1 / (1 + math.exp(9)) / 0.1) ** 8 * math.log1p(math.exp(-9)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(('function', 'pred', 'target', 'arguments', 'exact'), SMALL.values(), ids=SMALL)
def test_what_is_small_is_not_lost(device, function, pred, target, arguments, exact):
    loss, _ = run(function, pred, torch.tensor(target), device=device, reduction='sum', **arguments)
    assert float(loss) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(('gamma', 'by_score'), ((1.0, -2.0), (2.0, 0.0), (1.5, 0.0)))
def test_a_score_of_zero_has_the_gradient_of_its_power(gamma, by_score):
    """Of y ** gamma at y = 0: 1 where gamma is 1. With t = y ** gamma, BCE(p, t) has the derivative -x by t."""
    pred, score = torch.tensor([[2.0]]), torch.zeros(1, requires_grad=True)
    target = (torch.zeros(1, dtype=torch.int64), score)
    functional.matchability_aware_loss(pred, target, gamma=gamma, reduction='sum').backward()
    torch.testing.assert_close(score.grad, torch.full_like(score, by_score))


@pytest.mark.parametrize('clip', (1e-6, 1e-4, 5e-4))
def test_a_small_clip_bounds_a_sure_mistake_as_it_says(any_backend, device, clip):
    """A negative of p = 1 costs -log(clip): a bound of its own for clip would show there."""
    x = torch.tensor([[3.0], [12.0], [40.0]], device=device)
    loss = functional.asymmetric_loss(x, torch.ones(3, dtype=torch.int64, device=device), clip=clip, reduction='none')
    shifted = x.double().sigmoid() - torch.tensor(clip, dtype=torch.float32).double()
    expected = shifted**4 * -torch.log1p(-shifted)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    assert float(loss[2]) == pytest.approx(-math.log(clip), rel=5 * clip)  # times (1 - clip) ** 4
