"""The variants' oracle itself: central differences, the definitions written out, values computed by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import oracle
from tests.oracle.variants import PER_ROW, POINTS, point_of, row_factors, statistics, variant_loss

LN2, LN3 = math.log(2), math.log(3)
SETTINGS = {
    'focal': [dict(gamma=2.0, alpha=0.25), dict(gamma=0.5, alpha=None)],
    'focal_star': [dict(gamma=1.0, beta=0.0, alpha=None), dict(gamma=2.0, beta=1.0, alpha=0.25)],
    'quality_focal': [dict(beta=beta) for beta in (0, 1.5, 2, 5)],
    'varifocal': [
        dict(alpha=0.75, gamma=2.0, iou_weighted=True, detach_weight=False),
        dict(alpha=0.25, gamma=0.5, iou_weighted=False, detach_weight=True),
    ],
    'gaussian_focal': [
        dict(alpha=2.0, gamma=4.0, pos_weight=1.0, neg_weight=1.0),
        dict(alpha=0.5, gamma=0.0, pos_weight=0.5, neg_weight=3.0),
    ],
    'matchability_aware': [dict(gamma=1.5, mal_alpha=1.0), dict(gamma=0.0, mal_alpha=0.5)],
    'iou_aware_bce': [
        dict(k=0.25, gamma=2.0, detach_weight=False),
        dict(k=0.0, gamma=0.5, detach_weight=False),
        dict(k=0.75, gamma=1.0, detach_weight=True),
    ],
    'position_supervised': [
        dict(alpha=0.25, gamma=2.0, normalize='none'),
        dict(alpha=0.6, gamma=1.5, normalize='batch'),
    ],
    'equalized_focal': [dict(gamma=2.0, alpha=0.25, scale=8.0, ratio=r) for r in (0.0, 0.625, 1.0)],
    'class_balanced_focal': [dict(gamma=2.0)],
    'poly_focal': [
        dict(epsilon=1.0, gamma=2.0, alpha=0.25, alpha_on_poly=False),
        dict(epsilon=-1.0, gamma=0.5, alpha=None, alpha_on_poly=False),
        dict(epsilon=0.5, gamma=0.0, alpha=0.25, alpha_on_poly=True),
    ],
    'asymmetric': [
        dict(gamma_pos=1.0, gamma_neg=4.0, clip=0.05, detach_weight=False),
        dict(gamma_pos=0.0, gamma_neg=0.5, clip=0.0, detach_weight=False),
        dict(gamma_pos=1.0, gamma_neg=4.0, clip=0.05, detach_weight=True),
    ],
    'reduced_focal': [
        dict(threshold=0.5, gamma=2.0, alpha=None),
        dict(threshold=0.3, gamma=0.5, alpha=0.25),
        dict(threshold=1.0, gamma=2.0, alpha=None),
    ],
}
CASES = [(name, setting) for name, settings in SETTINGS.items() for setting in settings]
IDS = [f'{name} {"-".join(str(v) for v in setting.values())}' for name, setting in CASES]


def test_every_variant_is_tried():
    assert set(SETTINGS) == set(POINTS)


def constant_factors(name, setting):
    """Whether the derivative leaves out a factor that depends on x, so that a difference is not the derivative."""
    return setting.get('detach_weight') or name in ('matchability_aware', 'iou_aware_bce')


@pytest.mark.parametrize('name, setting', [case for case in CASES if not constant_factors(*case)])
def test_derivative_is_the_central_difference(name, setting):
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


@pytest.mark.parametrize('name, setting', [('gaussian_focal', s) for s in SETTINGS['gaussian_focal']]
                         + [('quality_focal', s) for s in SETTINGS['quality_focal']])  # fmt: skip
def test_derivative_by_a_probability_is_the_central_difference(name, setting):
    p = np.array([1e-3, 0.02, 0.31, 0.5, 0.77, 0.98], dtype=np.longdouble)[:, None]
    y = np.array([0, 0.3, 0.6, 1])
    step = np.longdouble(1e-8)
    point = point_of(name, p, y, probabilities=True, **setting)
    ahead, behind = (point_of(name, p + h, y, probabilities=True, **setting) for h in (step, -step))
    np.testing.assert_allclose(point.grad, (ahead.value - behind.value) / (2 * step), rtol=1e-8)


def definition(name, x, y, positive, s):
    """The formulas as their papers write them, by autograd: sound only at moderate logits."""
    p = torch.sigmoid(x)
    bce = lambda t: -t * p.log() - (1 - t) * torch.log1p(-p)  # noqa: E731
    detached = lambda t: t.detach() if s.get('detach_weight') else t  # noqa: E731
    alpha = s.get('alpha')
    balance = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
    p_t = p * y + (1 - p) * (1 - y)
    either = lambda a, b: torch.where(positive, a, b)  # noqa: E731
    match name:
        case 'focal':
            return balance * (1 - p_t) ** s['gamma'] * bce(y)
        case 'class_balanced_focal':
            return (1 - p_t) ** s['gamma'] * bce(y)
        case 'focal_star':
            return -balance * F.logsigmoid(s['gamma'] * x * (2 * y - 1) + s['beta']) / s['gamma']
        case 'quality_focal':
            return (y - p).abs() ** s['beta'] * bce(y)
        case 'varifocal':
            weight = y if s['iou_weighted'] else torch.ones_like(y)
            return torch.where(y > 0, weight, detached(s['alpha'] * (p - y).abs() ** s['gamma'])) * bce(y)
        case 'gaussian_focal':
            repelled = -((1 - y) ** s['gamma']) * p ** s['alpha'] * torch.log1p(-p)
            attracted = -((1 - p) ** s['alpha']) * p.log()
            return torch.where(y == 1, s['pos_weight'] * attracted, s['neg_weight'] * repelled)
        case 'matchability_aware':
            return either(torch.ones_like(p), s['mal_alpha'] * p.detach() ** s['gamma']) * bce(
                either(y ** s['gamma'], torch.zeros_like(p))
            )
        case 'iou_aware_bce':
            t = (p ** s['k'] * y ** (1 - s['k'])).clamp(min=0.01).detach()
            return either(bce(t), -detached(p ** s['gamma']) * torch.log1p(-p))
        case 'position_supervised':
            t = y**2 / (y.max() ** 2 + 1e-8) if s['normalize'] == 'batch' else y**2
            attracted = s['alpha'] * (t - p).abs() ** s['gamma'] * bce(t)
            return either(attracted, -(1 - s['alpha']) * p ** s['gamma'] * torch.log1p(-p))
        case 'equalized_focal':
            own = s['gamma'] + s['scale'] * (1 - s['ratio'])
            return balance * own / s['gamma'] * (1 - p_t) ** own * bce(y)
        case 'poly_focal':
            term = s['epsilon'] * (1 - p_t) ** (s['gamma'] + 1)
            return balance * (1 - p_t) ** s['gamma'] * bce(y) + (balance * term if s['alpha_on_poly'] else term)
        case 'asymmetric':
            shifted = (p - s['clip']).clamp(min=0)
            attracted = -detached((1 - p) ** s['gamma_pos']) * p.log()
            return y * attracted - (1 - y) * detached(shifted ** s['gamma_neg']) * torch.log1p(-shifted)
        case 'reduced_focal':
            factor = torch.where(p_t < s['threshold'], 1.0, ((1 - p_t) / s['threshold']) ** s['gamma'])
            return balance * factor * bce(y)


@pytest.mark.parametrize('name, setting', CASES, ids=IDS)
def test_value_and_derivative_are_the_definitions(name, setting):
    x = torch.linspace(-9.7, 9.9, 24, dtype=torch.float64)[:, None].repeat(1, 5).requires_grad_()
    y = torch.tensor([0, 0.01, 0.3, 0.8, 1], dtype=torch.float64).expand_as(x)
    for positive in (y > 0, torch.ones_like(y, dtype=torch.bool)):  # with scores a positive's may be 0
        value = definition(name, x, y, positive, setting)
        (grad,) = torch.autograd.grad(value.sum(), x)
        point = point_of(name, oracle.array(x), oracle.array(y), oracle.array(positive), **setting)
        np.testing.assert_allclose(point.value, value.detach(), rtol=1e-9, atol=1e-15)
        assert (np.abs(point.grad - oracle.array(grad)) <= 1e-9 * (point.grad_terms + point.value_terms)).all()


@pytest.mark.parametrize(
    'name, x, y, value, grad, setting',
    [
        ('focal_star', 0, 1, math.log1p(1 / math.e) / 2, -1 / (1 + math.e), dict(gamma=2, beta=1, alpha=None)),
        ('focal_star', LN3, 1, 0.25 * math.log(4 / 3), -0.0625, dict(gamma=1, beta=0, alpha=0.25)),
        ('quality_focal', 0, 0.25, LN2 / 16, LN2 / 8 + 1 / 64, dict(beta=2)),
        ('quality_focal', 0, 0.75, LN2 / 16, -LN2 / 8 - 1 / 64, dict(beta=2)),
        ('varifocal', 0, 0.75, 0.75 * LN2, -0.1875, dict(alpha=0.75, gamma=2, iou_weighted=True, detach_weight=False)),
        ('varifocal', 0, 0.75, LN2, -0.25, dict(alpha=0.75, gamma=2, iou_weighted=False, detach_weight=False)),
        ('varifocal', 0, 0, 0.1875 * LN2, 0.1875 * (LN2 + 0.5),
         dict(alpha=0.75, gamma=2, iou_weighted=True, detach_weight=False)),
        ('varifocal', 0, 0, 0.1875 * LN2, 0.09375, dict(alpha=0.75, gamma=2, iou_weighted=True, detach_weight=True)),
        ('gaussian_focal', 0, 1, LN2 / 2, -LN2 / 2 - 0.25, dict(alpha=2, gamma=4, pos_weight=2, neg_weight=1)),
        ('gaussian_focal', 0, 0.5, 3 * LN2 / 64, 3 * (LN2 + 0.5) / 64,
         dict(alpha=2, gamma=4, pos_weight=1, neg_weight=3)),
        ('matchability_aware', 0, 0.25, LN2, 0.375, dict(gamma=1.5, mal_alpha=1)),
        ('matchability_aware', 0, 0, LN2 / 8, 0.0625, dict(gamma=2, mal_alpha=0.5)),
        ('iou_aware_bce', 0, 0.125, LN2, 0.25, dict(k=0.5, gamma=2, detach_weight=False)),
        ('iou_aware_bce', 0, 1e-9, LN2, 0.49, dict(k=0.5, gamma=2, detach_weight=False)),
        ('iou_aware_bce', 0, 0, LN2 / 4, LN2 / 4 + 0.125, dict(k=0.5, gamma=2, detach_weight=False)),
        ('iou_aware_bce', 0, 0, LN2 / 4, 0.125, dict(k=0.5, gamma=2, detach_weight=True)),
        ('position_supervised', 0, 0.5, LN2 / 64, LN2 / 32 + 1 / 256, dict(alpha=0.25, gamma=2, normalize='none')),
        ('position_supervised', 0, 0, 3 * LN2 / 16, 3 * (LN2 + 0.5) / 16, dict(alpha=0.25, gamma=2, normalize='none')),
        ('equalized_focal', 0, 1, LN2 / 32, -(4 * LN2 * 0.5 + 0.5) / 32,
         dict(gamma=2, alpha=0.25, scale=8, ratio=0.75)),
        ('poly_focal', 0, 1, LN2 / 16 + 1 / 8, -(LN2 + 0.5) / 16 - 3 / 16,
         dict(epsilon=1, gamma=2, alpha=0.25, alpha_on_poly=False)),
        ('poly_focal', 0, 1, LN2 / 16 + 1 / 32, -(LN2 + 0.5) / 16 - 3 / 64,
         dict(epsilon=1, gamma=2, alpha=0.25, alpha_on_poly=True)),
        ('asymmetric', LN3, 0, LN2 / 2, 3 * (LN2 + 1) / 16,
         dict(gamma_pos=0, gamma_neg=1, clip=0.25, detach_weight=False)),
        ('asymmetric', LN3, 0, LN2 / 2, 3 / 16, dict(gamma_pos=0, gamma_neg=1, clip=0.25, detach_weight=True)),
        ('asymmetric', -LN3, 0, 0, 0, dict(gamma_pos=0, gamma_neg=1, clip=0.375, detach_weight=False)),
        ('asymmetric', LN3, 1, math.log(4 / 3), -0.25, dict(gamma_pos=0, gamma_neg=1, clip=0.25, detach_weight=False)),
        ('reduced_focal', LN3, 1, math.log(4 / 3) / 4, -(1.5 * math.log(4 / 3) + 0.25) / 4,
         dict(threshold=0.5, gamma=2, alpha=None)),
        ('reduced_focal', -LN3, 1, math.log(4), -0.75, dict(threshold=0.5, gamma=2, alpha=None)),
        ('reduced_focal', 1e-30, 1, LN2, -LN2 - 0.5, dict(threshold=0.5, gamma=2, alpha=None)),
        ('reduced_focal', -1e-30, 1, LN2, -0.5, dict(threshold=0.5, gamma=2, alpha=None)),
    ],
)  # fmt: skip
def test_values_by_hand(name, x, y, value, grad, setting):
    """At x = 0 p is 1/2 and the cross-entropy log 2 whatever the target; at x = log 3 p is 3/4."""
    point = point_of(name, x, y, **setting)
    assert float(point.value) == pytest.approx(value, rel=1e-14, abs=1e-300)
    assert float(point.grad) == pytest.approx(grad, rel=1e-14, abs=1e-300)


def test_batch_normalisation_of_the_position_target():
    """t = (1/4, 1/16) / (1/4 + 1e-8)."""
    point = point_of('position_supervised', 0.0, [0.5, 0.25], alpha=1.0, gamma=0.0, normalize='batch')
    np.testing.assert_allclose(point.grad, [0.5 - 0.25 / 0.25000001, 0.5 - 0.0625 / 0.25000001], rtol=1e-15)


def test_class_balanced_factors():
    """(1 - b) / (1 - b^n) for b = 1/2 and n = 1, 2: 1 and 2/3, times 2 / (5/3); the background's is 1."""
    np.testing.assert_allclose(row_factors([0, 1, 2], [1, 2], 0.5), [1.2, 0.8, 1.0], rtol=1e-15)
    np.testing.assert_allclose(row_factors([0, 1, 2], [7, 7], 0.999), [1, 1, 1], rtol=1e-15)


@pytest.mark.parametrize('name, setting', CASES, ids=IDS)
def test_infinite_logits_give_the_limit(name, setting):
    """What is left at 1e4 decays as exp(-1e4); a loss that doubles on the way there from 5e3 is linear."""
    y = np.array([0, 0.3, 1])
    for sign in (-1, 1):
        at_infinity, far, half_way = (point_of(name, sign * x, y, **setting) for x in (np.inf, 1e4, 5e3))
        np.testing.assert_allclose(at_infinity.grad.astype(float), far.grad.astype(float), rtol=1e-12, atol=1e-300)
        limit = np.where(far.value > 1.5 * half_way.value + 1e-300, np.inf, far.value).astype(float)
        np.testing.assert_allclose(at_infinity.value.astype(float), limit, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize('name, setting', CASES, ids=IDS)
def test_nan_in_nan_out(name, setting):
    for point in (point_of(name, np.nan, [0.0, 1.0], **setting), point_of(name, 1.0, np.nan, **setting)):
        assert np.isnan(point).all()


@pytest.mark.parametrize('name, setting', CASES, ids=IDS)
def test_margins_are_small_away_from_cancellation(name, setting):
    """Hard labels are held to the relative error alone, but where a target or a shift is computed."""
    x = np.linspace(-9.7, 9.9, 24)[:, None]
    point = point_of(name, x, np.array([0.0, 1.0]), **setting)
    computed = (name == 'iou_aware_bce' and setting['k'] > 0) or setting.get('normalize') == 'batch'
    margins = [point.value_through_p, point.grad_through_p]
    if name == 'asymmetric' and setting['clip']:
        margins = [each[:, 1] for each in margins]
    if not computed:
        assert not np.any(margins)
    assert np.isfinite(margins).all()


@pytest.mark.parametrize('name', PER_ROW)
def test_calls_sum_over_the_classes(name):
    setting = SETTINGS[name][0]
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
    setting, pred = SETTINGS['matchability_aware'][0], torch.tensor([[0.0]])
    label, score = torch.tensor([0]), torch.tensor([0.0])
    assert float(variant_loss('matchability_aware', pred, (label, score), **setting).grad[0, 0]) == 0.5
    assert float(variant_loss('matchability_aware', pred, torch.zeros(1, 1), **setting).grad[0, 0]) == 0.5**2.5


def test_statistics_are_sums_by_class():
    pred, target = torch.tensor([[0.5, -2.0], [1.0, 3.0], [0.1, 0.2]]), torch.tensor([0, 2, 0])
    setting = SETTINGS['equalized_focal'][1]
    grad = np.abs(variant_loss('equalized_focal', pred, target, avg_factor=3.0, **setting).grad)
    expected = [[grad[0, 0] + grad[2, 0], 0], [grad[1, 0], grad[:, 1].sum()]]
    np.testing.assert_allclose(
        statistics('equalized_focal', pred, target, avg_factor=3.0, **setting), expected, rtol=1e-15
    )
