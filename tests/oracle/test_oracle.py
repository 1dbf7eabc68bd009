"""The oracle itself, against the definition in 50 digits, and its helpers against values known by other means."""

import mpmath
import numpy as np
import pytest
import torch

from tests.oracle import (
    assert_accurate,
    dense_target,
    focal,
    focal_of_probability,
    rounded,
    sigmoid_focal_loss,
    ulp_distance,
)

GAMMAS = [0, 0.5, 1, 1.5, 2, 5]
LOGITS = [-1e4, -800.0, -100.0, -17.3, -9.39, -1.0, -1e-9, 0.0, 0.3, 2.0, 16.9, 88.8, 710.0, 1e4]


def in_fifty_digits(x, y, gamma, alpha):
    """The definition of the paper, as far as it goes for soft targets: a m^gamma BCE."""

    def loss(x):
        p, q = 1 / (1 + mpmath.exp(-x)), 1 / (1 + mpmath.exp(x))
        entropy = y * mpmath.log1p(mpmath.exp(-x)) + (1 - y) * mpmath.log1p(mpmath.exp(x))
        balance = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
        return balance * ((1 - y) * p + y * q) ** gamma * entropy

    with mpmath.workdps(50):
        x, y, gamma = mpmath.mpf(x), mpmath.mpf(y), mpmath.mpf(gamma)
        alpha = None if alpha is None else mpmath.mpf(alpha)
        return loss(x), mpmath.diff(loss, x)


def relative_error(actual, exact):
    """0 where both vanish, also where float64 has nothing smaller than the smallest normal number to tell."""
    if abs(exact) < 1e-307:
        return abs(actual) > 1e-307
    return float(abs((mpmath.mpf(float(actual)) - exact) / exact))


@pytest.mark.parametrize('gamma', GAMMAS)
@pytest.mark.parametrize('y', [0, 1])
def test_hard_targets_match_the_definition(y, gamma):
    point = focal(LOGITS, y, gamma, 0.25)
    for i, x in enumerate(LOGITS):
        value, grad = in_fifty_digits(x, y, gamma, 0.25)
        assert relative_error(point.value[i], value) < 1e-15, x
        assert relative_error(point.grad[i], grad) < 1e-15, x


@pytest.mark.parametrize('gamma', GAMMAS)
@pytest.mark.parametrize('y', [1e-3, 0.3, 0.5, 0.75, 1 - 2**-24])
def test_soft_targets_match_the_definition(y, gamma):
    """Also next to x = logit(y), where p - y cancels: what p itself is rounded by remains, 1e-19 of longdouble."""
    logits = [*LOGITS, float(np.log(y / (1 - y))), float(np.log(y / (1 - y))) + 1e-5]
    point = focal(logits, y, gamma, 0.25)
    for i, x in enumerate(logits):
        value, grad = in_fifty_digits(x, y, gamma, 0.25)
        assert relative_error(point.value[i], value) < 1e-15, x
        assert abs(point.grad[i] - float(grad)) <= 1e-15 * point.terms[i] + 1e-18 * point.through_p[i], x


def test_without_alpha_positives_and_negatives_weigh_one():
    for alpha in (None, -1, -0.5):
        value, grad = in_fifty_digits(0.3, 1, 2, None)
        point = focal(0.3, 1, 2, alpha)
        assert relative_error(point.value, value) < 1e-15 and relative_error(point.grad, grad) < 1e-15


def test_terms_of_hard_targets_do_not_cancel():
    for y in (0, 1):
        point = focal(LOGITS, y)
        np.testing.assert_allclose(point.terms, np.abs(point.grad), rtol=1e-15)


@pytest.mark.parametrize(
    'x, y, value, grad',
    [
        (np.inf, 1, 0, 0),
        (-np.inf, 0, 0, 0),
        (np.inf, 0, np.inf, 0.75),
        (-np.inf, 1, np.inf, -0.25),
        (np.inf, 0.5, np.inf, 0.0625),
    ],
)
def test_infinite_logits_give_the_limit(x, y, value, grad):
    """At +inf, for y = 1/2: a = 1/2, m = 1/2, p - y = 1/2."""
    point = focal(x, y, 2, 0.25)
    assert (float(point.value), float(point.grad)) == (value, grad)


def test_alpha_one_silences_negatives_even_at_infinity():
    point = focal([np.inf, 1e4, 3.0], 0, 2, 1.0)
    assert not point.value.any() and not point.grad.any()


def test_nan_in_nan_out():
    """Also for alpha = 1 and y = 0, where a factor of 0 meets the NaN."""
    for point in (focal(np.nan, 0, 2, 1.0), focal(1.0, np.nan), focal_of_probability(np.nan, 1.0)):
        assert np.isnan(point).all()


def test_parameters_may_be_vectors_over_the_classes():
    x = np.linspace(-3, 3, 6).reshape(2, 3)
    gamma, alpha = np.array([0, 1.5, 2]), np.array([0.25, 0.5, 1])
    point = focal(x, 1, gamma, alpha)
    for c in range(3):
        column = focal(x[:, c], 1, gamma[c], alpha[c])
        np.testing.assert_array_equal(point.value[:, c], column.value)
        np.testing.assert_array_equal(point.grad[:, c], column.grad)


@pytest.mark.parametrize('gamma', GAMMAS)
@pytest.mark.parametrize('y', [0.0, 0.4, 1.0])
def test_probabilities_match_the_definition(y, gamma):
    def loss(p):
        entropy = -y * mpmath.log(p) - (1 - y) * mpmath.log1p(-p)
        return (0.25 * y + 0.75 * (1 - y)) * (y * (1 - p) + (1 - y) * p) ** gamma * entropy

    for p in (1e-11, 0.01, 0.4, 0.4000001, 0.99, 1 - 1e-11):
        point = focal_of_probability(p, y, gamma, 0.25)
        with mpmath.workdps(50):
            value, grad = loss(mpmath.mpf(p)), mpmath.diff(loss, mpmath.mpf(p))
        assert relative_error(point.value, value) < 1e-15
        assert abs(point.grad - float(grad)) <= 1e-15 * point.terms + 1e-18 * point.through_p


@pytest.mark.parametrize('gamma', [0.5, 1, 2])
@pytest.mark.parametrize('p, y', [(0.0, 1.0), (1.0, 0.0), (1e-60, 1.0), (0.3, 0.2), (0.0, 0.5)])
def test_ends_of_the_probabilities_are_torchs(p, y, gamma):
    """torch's binary_cross_entropy, with its clamp at -100 and its derivative's 1e-12, through autograd."""
    probability = torch.tensor([p], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([y], dtype=torch.float64)
    miss = (1 - probability) * target + probability * (1 - target)
    entropy = torch.nn.functional.binary_cross_entropy(probability, target, reduction='none')
    value = (0.25 * target + 0.75 * (1 - target)) * miss**gamma * entropy
    value.sum().backward()
    point = focal_of_probability([p], [y], gamma, 0.25)
    np.testing.assert_allclose(point.value, value.detach().numpy(), rtol=1e-14)
    np.testing.assert_allclose(point.grad, probability.grad.numpy(), rtol=1e-13)


def test_a_right_probability_at_its_end_has_no_loss_and_no_gradient():
    """Where torch's autograd gives NaN for gamma below 1: inf * 0."""
    for gamma in GAMMAS:
        point = focal_of_probability([0.0, 1.0], [0.0, 1.0], gamma)
        assert not point.value.any() and not point.grad.any()


def test_labels_become_one_hot_rows():
    np.testing.assert_array_equal(dense_target([1, 3, 0, 255], 3), [[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]])


def test_call_weighs_reduces_and_ignores():
    pred = torch.tensor([[0.5, -2.0], [1.0, 3.0], [0.1, 0.2]])
    target = torch.tensor([0, 2, 255])
    point = focal(pred, dense_target(target, 2))
    result = sigmoid_focal_loss(
        pred, target, torch.tensor([2.0, 0.5, 7.0]), avg_factor=4, ignore_index=255, upstream=3.0
    )
    expected = (2 * point.value[0].sum() + 0.5 * point.value[1].sum()) / (4 + 2**-23)
    assert float(result.value) == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(result.grad[0], 3 * 2 * point.grad[0] / (4 + 2**-23), rtol=1e-15)
    assert not result.grad[2].any()


@pytest.mark.parametrize(
    'weight, factors',
    [
        ([2.0, 3.0], [[2, 2], [3, 3]]),
        ([[2.0], [3.0]], [[2, 2], [3, 3]]),
        ([[2.0, 3.0]], [[2, 3], [2, 3]]),
        ([[1.0, 2.0], [3.0, 4.0]], [[1, 2], [3, 4]]),
        ([1.0, 2.0, 3.0, 4.0], [[1, 2], [3, 4]]),
    ],
    ids=['one per row, as many rows as classes', 'a column', 'a row of classes', 'dense', 'flat'],
)
def test_weight_forms(weight, factors):
    pred = torch.tensor([[0.5, -2.0], [1.0, 3.0]])
    plain = sigmoid_focal_loss(pred, torch.tensor([0, 1]), reduction='none')
    weighted = sigmoid_focal_loss(pred, torch.tensor([0, 1]), torch.tensor(weight), reduction='none')
    np.testing.assert_array_equal(weighted.value, plain.value * np.array(factors))
    np.testing.assert_array_equal(weighted.grad, plain.grad * np.array(factors))


def test_no_rows_give_zero():
    result = sigmoid_focal_loss(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert float(result.value) == 0 and result.grad.shape == (0, 4)


@pytest.mark.parametrize(
    'value, dtype, expected',
    [
        (1 + 2**-11, torch.float16, 1.0),
        (1 + 2**-11 + 2**-40, torch.float16, 1 + 2**-10),
        (1 + 3 * 2**-8, torch.bfloat16, 1 + 2**-6),
        (1 + 2**-8 + 2**-50, torch.bfloat16, 1 + 2**-7),
        (65519.0, torch.float16, 65504.0),
        (-65520.0, torch.float16, -np.inf),
        (2**-25 + 2**-60, torch.float16, 2**-24),
        (2**-25, torch.float16, 0.0),
        (0.1, torch.float32, float(np.float32(0.1))),
        (np.inf, torch.bfloat16, np.inf),
    ],
    ids=[
        *('tie to even, down', 'just above a tie: float32 would lose it', 'tie to even, up', 'just above a tie, bf16'),
        *('largest', 'overflow', 'smallest subnormal', 'tie to zero', 'float32', 'inf'),
    ],
)
def test_rounding_is_correct(value, dtype, expected):
    assert float(rounded(value, dtype)) == expected


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_ulp_distance_counts_steps(dtype):
    one = torch.ones(1, dtype=dtype)
    next_up = one + torch.finfo(dtype).eps
    tiny = torch.tensor([torch.finfo(dtype).tiny], dtype=dtype)
    assert ulp_distance(one, next_up, dtype) == 1
    assert ulp_distance(next_up, 1.0, dtype) == 1
    assert ulp_distance(-one, -next_up, dtype) == 1
    assert ulp_distance(torch.zeros(1, dtype=dtype), -torch.zeros(1, dtype=dtype), dtype) == 0
    assert ulp_distance(tiny, -tiny, dtype) == 2 * round(torch.finfo(dtype).tiny / rounded_down_to_subnormal(dtype))
    assert ulp_distance(one * float('nan'), np.nan, dtype) == 0
    assert ulp_distance(one, np.nan, dtype) > 2**40


def rounded_down_to_subnormal(dtype):
    return torch.finfo(dtype).tiny * torch.finfo(dtype).eps


def test_accuracy_check_fails_when_it_must():
    good = np.array([1.0, -2.0, 0.0])
    assert_accurate(torch.tensor(good, dtype=torch.float32), good)
    for bad in ([1.00002, -2.0, 0.0], [1.0, -2.0, 1e-6], [1.0, np.nan, 0.0], [1.0, -np.inf, 0.0]):
        with pytest.raises(AssertionError):
            assert_accurate(torch.tensor(bad, dtype=torch.float32), good)
    one_step, two_steps = (torch.tensor([1 + n * 2**-10], dtype=torch.float16) for n in (1, 2))
    assert_accurate(one_step, np.ones(1))
    with pytest.raises(AssertionError):
        assert_accurate(two_steps, np.ones(1))
    with pytest.raises(AssertionError):
        assert_accurate(torch.tensor([0.0]), np.array([np.nan]))
    largest = torch.tensor([65504.0], dtype=torch.float16)
    assert_accurate(largest, np.array([1e12]), saturates=True)
    with pytest.raises(AssertionError):
        assert_accurate(largest, np.array([1e12]))
