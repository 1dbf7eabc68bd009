"""The variants' oracle itself: central differences, the definitions written out, values computed by hand."""

import numpy as np
import pytest
import torch

from tests import oracle
from tests.oracle.variants import point_of, statistics, variant_loss
from tests.variants import POINTS, VARIANTS
from tests.variants.class_balanced_focal import factor_of_label


def setting_of(name: str, reason: str) -> dict:
    """All arguments of a closed form in one of the settings; -1 for alpha is none."""
    arguments = VARIANTS[name].arguments(2, reason)
    return arguments | ({'alpha': None} if arguments.get('alpha') == -1 else {})


def detaches(name: str, reason: str) -> bool:
    """Whether the derivative leaves out a factor that depends on x, so that a difference is not the derivative."""
    return VARIANTS[name].detaches or setting_of(name, reason).get('detach_weight', False)


@pytest.mark.parametrize('name, reason', [case for case in POINTS if not detaches(*case)])
def test_derivative_is_the_central_difference(name, reason):
    setting = setting_of(name, reason)
    x = np.array([-300.0, -80, -20.3, -6, -2.2, -0.7, -0.1, 0.2, 0.9, 3, 9.39, 17, 40, 300], dtype=np.longdouble)[
        :, None
    ]
    y = np.array([0, 0.01, 0.3, 0.6, 0.95, 1], dtype=np.longdouble)
    step = np.longdouble(1e-6)
    point = point_of(name, x, y, **setting)
    ahead, behind = (point_of(name, x + h, y, **setting) for h in (step, -step))
    difference = (ahead.value - behind.value) / (2 * step)
    bound = 1e-8 * point.grad_terms + 1e-10 * point.value_terms + 1e-300
    assert (np.abs(point.grad - difference) <= bound).all()


@pytest.mark.parametrize('name, reason', [case for case in POINTS if VARIANTS[case[0]].point_of_probability])
def test_derivative_by_a_probability_is_the_central_difference(name, reason):
    setting = setting_of(name, reason)
    p = np.array([1e-3, 0.02, 0.31, 0.5, 0.77, 0.98], dtype=np.longdouble)[:, None]
    y = np.array([0, 0.3, 0.6, 1])
    step = np.longdouble(1e-8)
    point = point_of(name, p, y, probabilities=True, **setting)
    ahead, behind = (point_of(name, p + h, y, probabilities=True, **setting) for h in (step, -step))
    difference = (ahead.value - behind.value) / (2 * step)
    rounding = np.finfo(point.value.dtype).eps * point.value_terms / step
    assert (np.abs(point.grad - difference) <= 1e-8 * point.grad_terms + rounding).all()


@pytest.mark.parametrize('name, reason', POINTS)
def test_value_and_derivative_are_the_definitions(name, reason):
    setting = setting_of(name, reason)
    x = torch.linspace(-9.7, 9.9, 24, dtype=torch.float64)[:, None].repeat(1, 5).requires_grad_()
    y = torch.tensor([0, 0.01, 0.3, 0.8, 1], dtype=torch.float64).expand_as(x)
    for positive in (y > 0, torch.ones_like(y, dtype=torch.bool)):  # with scores a positive's may be 0
        value = VARIANTS[name].formula(x, y, positive, **setting)
        (grad,) = torch.autograd.grad(value.sum(), x)
        point = point_of(name, oracle.array(x), oracle.array(y), oracle.array(positive), **setting)
        np.testing.assert_allclose(point.value, value.detach(), rtol=1e-9, atol=1e-15)
        assert (np.abs(point.grad - oracle.array(grad)) <= 1e-9 * (point.grad_terms + point.value_terms)).all()


@pytest.mark.parametrize(
    'name, x, y, value, grad, given', [(name, *row) for name, variant in VARIANTS.items() for row in variant.by_hand]
)
def test_values_by_hand(name, x, y, value, grad, given):
    """At x = 0 p is 1/2 and the cross-entropy log 2 whatever the target; at x = log 3 p is 3/4."""
    point = point_of(name, x, y, **VARIANTS[name].complete(given))
    assert float(point.value) == pytest.approx(value, rel=1e-14, abs=1e-300)
    assert float(point.grad) == pytest.approx(grad, rel=1e-14, abs=1e-300)


def test_batch_normalisation_of_the_position_target():
    """t = (1/4, 1/16) / (1/4 + 1e-8)."""
    point = point_of('position_supervised', 0.0, [0.5, 0.25], alpha=1.0, gamma=0.0, normalize='batch')
    np.testing.assert_allclose(point.grad, [0.5 - 0.25 / 0.25000001, 0.5 - 0.0625 / 0.25000001], rtol=1e-15)


def test_class_balanced_factors():
    """(1 - b) / (1 - b^n) for b = 1/2 and n = 1, 2: 1 and 2/3, times 2 / (5/3); the background's is 1."""
    np.testing.assert_allclose(factor_of_label([0, 1, 2], [1, 2], 0.5), [1.2, 0.8, 1.0], rtol=1e-15)
    np.testing.assert_allclose(factor_of_label([0, 1, 2], [7, 7], 0.999), [1, 1, 1], rtol=1e-15)


@pytest.mark.parametrize('name, reason', POINTS)
def test_infinite_logits_give_the_limit(name, reason):
    """What is left at 1e4 decays as exp(-1e4); a loss that doubles on the way there from 5e3 is linear."""
    setting = setting_of(name, reason)
    y = np.array([0, 0.3, 1])
    for sign in (-1, 1):
        at_infinity, far, half_way = (point_of(name, sign * x, y, **setting) for x in (np.inf, 1e4, 5e3))
        np.testing.assert_allclose(at_infinity.grad.astype(float), far.grad.astype(float), rtol=1e-12, atol=1e-300)
        limit = np.where(far.value > 1.5 * half_way.value + 1e-300, np.inf, far.value).astype(float)
        np.testing.assert_allclose(at_infinity.value.astype(float), limit, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize('name, reason', POINTS)
def test_nan_in_nan_out(name, reason):
    setting = setting_of(name, reason)
    for point in (point_of(name, np.nan, [0.0, 1.0], **setting), point_of(name, 1.0, np.nan, **setting)):
        assert np.isnan(point).all()


@pytest.mark.parametrize('name, reason', POINTS)
def test_margins_are_small_away_from_cancellation(name, reason):
    """Hard labels are held to the relative error alone, but where a target or a shift is computed."""
    setting = setting_of(name, reason)
    x = np.linspace(-9.7, 9.9, 24)[:, None]
    point = point_of(name, x, np.array([0.0, 1.0]), **setting)
    margins = [np.broadcast_to(each, point.grad.shape) for each in (point.value_through_p, point.grad_through_p)]
    for label in {0, 1} - {*VARIANTS[name].rounded(setting)}:
        assert not any(each[:, label].any() for each in margins)
    assert np.isfinite(margins).all()


@pytest.mark.parametrize('name', [name for name, variant in VARIANTS.items() if variant.per_row and variant.point])
def test_calls_sum_over_the_classes(name):
    setting = VARIANTS[name].complete()
    pred = torch.tensor([[0.5, -2.0, 1.0], [1.0, 3.0, 0.2], [0.1, 0.2, -4.0], [0.3, 0.1, 9.0]])
    label, score = torch.tensor([0, 3, 2, 1]), torch.tensor([0.5, 0.0, 0.9, 0.7])
    weight = torch.tensor([2.0, 0.5, 7.0, 1.0])
    dense = torch.tensor([[0.5, 0, 0], [0, 0, 0], [0, 0, 0.9], [0, 0.7, 0]])
    point = point_of(name, oracle.array(pred), oracle.array(dense), **setting)
    rows = np.array([2, 0.5, 7, 1]) * point.value.sum(-1)
    none = variant_loss(name, pred, (label, score), weight, reduction='none', upstream=np.arange(4), **setting)
    np.testing.assert_allclose(none.value, rows.astype(float), rtol=1e-15)
    factors = np.arange(4)[:, None] * oracle.array(weight)[:, None]
    np.testing.assert_allclose(none.grad, (factors * point.grad).astype(float), rtol=1e-15)
    mean = variant_loss(name, pred, dense, weight, upstream=3.0, **setting)
    assert float(mean.value) == pytest.approx(float(rows.sum()) / 4, rel=1e-15)
    np.testing.assert_allclose(
        mean.grad, (3 / 4 * oracle.array(weight)[:, None] * point.grad).astype(float), rtol=1e-14
    )
    divided = variant_loss(name, pred, (label, score), ignore_index=3, avg_factor=4, **setting)
    kept = [0, 2, 3]
    assert float(divided.value) == pytest.approx(float(point.value[kept].sum()) / (4 + 2**-23), rel=1e-15)
    assert not divided.grad[1].any()


def test_calls_agree_with_the_focal_oracle():
    pred, target = torch.tensor([[0.5, -2.0], [1.0, 3.0], [0.1, 0.2]]), torch.tensor([0, 2, 1])
    for arguments in (dict(reduction='none'), dict(avg_factor=7, upstream=3.0), dict(ignore_index=2)):
        one = variant_loss('focal', pred, target, torch.tensor([2.0, 0.5, 7.0]), gamma=2.0, alpha=0.25, **arguments)
        other = oracle.sigmoid_focal_loss(pred, target, torch.tensor([2.0, 0.5, 7.0]), **arguments)
        np.testing.assert_array_equal(one.value, other.value)
        np.testing.assert_array_equal(one.grad, other.grad)


def test_a_label_is_a_positive_whatever_its_score():
    setting, pred = VARIANTS['matchability_aware'].complete(), torch.tensor([[0.0]])
    label, score = torch.tensor([0]), torch.tensor([0.0])
    assert float(variant_loss('matchability_aware', pred, (label, score), **setting).grad[0, 0]) == 0.5
    assert float(variant_loss('matchability_aware', pred, torch.zeros(1, 1), **setting).grad[0, 0]) == 0.5**2.5


def test_statistics_are_sums_by_class():
    pred, target = torch.tensor([[0.5, -2.0], [1.0, 3.0], [0.1, 0.2]]), torch.tensor([0, 2, 0])
    setting = setting_of('equalized_focal', 'between')
    grad = np.abs(variant_loss('equalized_focal', pred, target, avg_factor=3.0, **setting).grad)
    expected = [[grad[0, 0] + grad[2, 0], 0], [grad[1, 0], grad[:, 1].sum()]]
    np.testing.assert_allclose(
        statistics('equalized_focal', pred, target, avg_factor=3.0, **setting), expected, rtol=1e-15
    )
