"""fvcore.nn's focal losses under their own signatures: fvcore's values and gradients, and the identities it tests."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from focal_plugin.interop.fvcore import (
    sigmoid_focal_loss,
    sigmoid_focal_loss_jit,
    sigmoid_focal_loss_star,
    sigmoid_focal_loss_star_jit,
)
from tests.interop.peers import formula, logit, signature, value_and_grad
from tests.oracle import assert_accurate, ulp_distance
from tests.oracle import sigmoid_focal_loss as oracle

CASES = {
    'fvcore defaults': ((4, 5), -1, 2),
    'RetinaNet': ((4, 5), 0.25, 2),
    'three dimensions, one class': ((2, 3, 1), 0.25, 2),
    'one dimension': ((7,), 0.5, 2),
    'gamma below 1': ((4, 5), 0.25, 0.5),
    'a single number': ((), 0.25, 2),
}


STAR_CASES = {
    'fvcore defaults': ((4, 5), -1, 1),
    "the paper's gamma 2, with alpha": ((4, 5), 0.25, 2),
    'three dimensions, gamma 4': ((2, 3, 1), -1, 4),
    'gamma below 1': ((7,), 0.5, 0.5),
    'a single number': ((), 0.25, 3),
}
FOCAL = [sigmoid_focal_loss, sigmoid_focal_loss_jit]
STAR = [sigmoid_focal_loss_star, sigmoid_focal_loss_star_jit]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return drawn(*request.param)


@pytest.fixture(params=STAR_CASES.values(), ids=STAR_CASES.keys())
def star_case(request):
    return drawn(*request.param)


def drawn(shape, alpha, gamma):
    generator = torch.Generator().manual_seed(0)
    inputs = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, shape, generator=generator).double()
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
    return inputs, targets, alpha, gamma, upstream


def star_formula(inputs, targets, alpha, gamma, reduction='none'):
    """fvcore's, through torch's autograd."""
    loss = -F.logsigmoid(gamma * inputs * (2 * targets - 1)) / gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return {'none': lambda: loss, 'mean': loss.mean, 'sum': loss.sum}[reduction]()


@pytest.mark.parametrize('function, gamma', [(sigmoid_focal_loss, 2), (sigmoid_focal_loss_star, 1)])
def test_signature(function, gamma):
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = inspect.Parameter.empty
    assert signature(function) == [
        ('inputs', kind, required),
        ('targets', kind, required),
        ('alpha', kind, -1),
        ('gamma', kind, gamma),
        ('reduction', kind, 'none'),
    ]


@pytest.mark.parametrize('function', FOCAL, ids=['eager', 'jit'])
def test_values_and_gradients(case, function):
    """Arguments by position; float32 in, float64 formula as the reference."""
    inputs, targets, alpha, gamma, upstream = case
    inputs, upstream = inputs.float(), upstream.float()
    ours = value_and_grad(lambda x: function(x, targets.float(), alpha, gamma, 'none'), inputs, upstream)
    theirs = value_and_grad(lambda x: formula(x, targets, alpha, gamma), inputs.double(), upstream.double())
    assert ours[0].dtype == ours[1].dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0, check_dtype=False)


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_reductions(reduction):
    """Of losses without cancellation, so that the sum is as exact as its terms."""
    inputs, targets = torch.linspace(-4, 4, 60).reshape(3, 4, 5), (torch.arange(60) % 3 == 0).float().reshape(3, 4, 5)
    ours = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, 0.25, 2, reduction), inputs)
    theirs = value_and_grad(lambda x: formula(x, targets.double(), 0.25, 2, reduction), inputs.double())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0, check_dtype=False)


def test_soft_targets():
    inputs = torch.linspace(-6, 6, 101)
    targets = torch.rand(101, generator=torch.Generator().manual_seed(0))
    exact = oracle(inputs, targets, gamma=2, alpha=0.25, reduction='none')
    theirs = value_and_grad(lambda x: formula(x, targets.double(), 0.25, 2), inputs.double())
    torch.testing.assert_close(theirs[0], torch.from_numpy(exact.value), rtol=1e-12, atol=0)
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, 0.25), inputs)
    assert_accurate(value, exact.value)
    assert_accurate(grad, exact.grad, exact.grad_terms, exact.through_p)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('reduction', ['none', 'mean'])
def test_result_is_float32(dtype, reduction):
    """fvcore casts; the gradient comes back in the dtype of the logits."""
    inputs = torch.tensor([20.0, -3.0], dtype=dtype)
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss(x, torch.zeros_like(x), reduction=reduction), inputs)
    exact = oracle(inputs, torch.zeros(2), gamma=2, alpha=-1, reduction=reduction)
    assert value.dtype == torch.float32 and grad.dtype == dtype
    assert_accurate(value, exact.value)
    assert_accurate(grad.float() if dtype == torch.float64 else grad, exact.grad)


def test_integer_targets_are_cast():
    inputs = torch.tensor([0.3, -2.0])
    for gamma in (0, 2):
        ours = sigmoid_focal_loss(inputs, torch.tensor([1, 0]), gamma=gamma)
        assert torch.equal(ours, sigmoid_focal_loss(inputs, torch.tensor([1.0, 0.0]), gamma=gamma))


def test_targets_that_require_a_gradient_get_one():
    """fvcore's own benchmark asks for it."""
    targets = torch.tensor([0.2, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    inputs = torch.tensor([0.5, -1.0, 2.0])
    sigmoid_focal_loss(inputs, targets.float(), 0.25, 2, 'sum').backward()
    ours, targets.grad = targets.grad, None
    p = inputs.double().sigmoid()
    one_minus_pt = targets * (1 - p) + (1 - targets) * p
    entropy = F.binary_cross_entropy_with_logits(inputs.double(), targets, reduction='none')
    ((0.25 * targets + 0.75 * (1 - targets)) * one_minus_pt**2 * entropy).sum().backward()
    torch.testing.assert_close(ours, targets.grad, rtol=1e-5, atol=0)


@pytest.mark.parametrize('function', FOCAL, ids=['eager', 'jit'])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_gamma_zero_without_alpha_is_cross_entropy(reduction, function):
    """torch's, bit for bit, also where torch's is not exact; gradients but for the order of their factors."""
    inputs = logit(torch.tensor([[0.95, 0.55, 0.12], [0.0001, 0.90, 0.36], [0.06, 0.99, 0.5]]))
    targets = torch.eye(3)
    ours = value_and_grad(lambda x: function(x, targets, gamma=0, alpha=-1, reduction=reduction), inputs)
    theirs = value_and_grad(lambda x: F.binary_cross_entropy_with_logits(x, targets, reduction=reduction), inputs)
    assert torch.equal(ours[0], theirs[0])
    assert (ulp_distance(ours[1], theirs[1], torch.float32) <= 1).all()


@pytest.mark.parametrize('alpha, factor', [(-1, 1.0), (0.5, 2.0)])
def test_cross_entropy_is_larger_by_the_square_of_the_miss(alpha, factor):
    p_t = torch.tensor([0.95, 0.90, 0.6, 0.3, 0.05], dtype=torch.float64)
    inputs = logit(p_t)
    focal = sigmoid_focal_loss(inputs, torch.ones(5), alpha, 2)
    entropy = F.binary_cross_entropy_with_logits(inputs, torch.ones(5).double(), reduction='none')
    torch.testing.assert_close(entropy / focal, factor / (1 - p_t) ** 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize('alpha, silent', [(1, 0), (0, 1)], ids=['alpha 1: negatives', 'alpha 0: positives'])
def test_alpha_silences(alpha, silent):
    inputs, targets = logit(torch.tensor([0.05, 0.12, 0.89, 0.79])), torch.tensor([1.0, 1, 0, 0])
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, alpha, 2), inputs)
    assert ((value == 0) == (targets == silent)).all()
    assert ((grad == 0) == (targets == silent)).all()


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_jit_gives_the_same_bits(reduction):
    inputs, targets = torch.linspace(-5, 5, 40).reshape(5, 8), (torch.arange(40) % 2).float().reshape(5, 8)
    eager = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, 0.25, 2, reduction), inputs)
    scripted = value_and_grad(lambda x: sigmoid_focal_loss_jit(x, targets, 0.25, 2, reduction), inputs)
    torch.testing.assert_close(scripted, eager, rtol=0, atol=0)
    assert isinstance(sigmoid_focal_loss_jit, torch.jit.ScriptFunction)


def test_names_that_fvcore_lacks_are_no_attributes():
    import focal_plugin.interop.fvcore as module

    with pytest.raises(AttributeError, match='softmax_focal_loss_jit'):
        _ = module.softmax_focal_loss_jit


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)), 'shape'),
        ((torch.zeros(3), torch.zeros(3), 0.25, 2, 'avg'), 'avg'),
        ((torch.zeros(3), torch.zeros(3), 0.25, -1.0), 'gamma'),
        ((torch.zeros(3), torch.zeros(3), 1.5), 'alpha'),
    ],
    ids=['labels, which fvcore does not take', 'reduction', 'gamma', 'alpha'],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss(*arguments)


@pytest.mark.parametrize('gamma', [0, 2])
def test_mean_of_nothing_is_zero(gamma):
    """fvcore gives NaN."""
    inputs, targets = torch.zeros(0, 4), torch.zeros(0, 4)
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, gamma=gamma, reduction='mean'), inputs)
    assert value == 0 and grad.shape == (0, 4)


@pytest.mark.parametrize('function', STAR, ids=['eager', 'jit'])
@pytest.mark.parametrize('soft', [False, True], ids=['hard', 'soft'])
def test_star_values_and_gradients(star_case, function, soft):
    """Arguments by position. Soft targets: where y is near a half the gradients of the two classes cancel."""
    inputs, targets, alpha, gamma, upstream = star_case
    targets = (targets + 0.4) / 2 if soft else targets
    inputs, upstream, targets = inputs.float(), upstream.float(), targets.float()
    ours = value_and_grad(lambda x: function(x, targets, alpha, gamma, 'none'), inputs, upstream)
    theirs = value_and_grad(
        lambda x: star_formula(x, targets.double(), alpha, gamma), inputs.double(), upstream.double()
    )
    assert ours[0].dtype == ours[1].dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0, check_dtype=False)


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_star_reductions(reduction):
    inputs, targets = torch.linspace(-4, 4, 60).reshape(3, 4, 5), (torch.arange(60) % 3 == 0).float().reshape(3, 4, 5)
    ours = value_and_grad(lambda x: sigmoid_focal_loss_star(x, targets, 0.25, 2, reduction), inputs)
    theirs = value_and_grad(lambda x: star_formula(x, targets.double(), 0.25, 2, reduction), inputs.double())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0, check_dtype=False)


@pytest.mark.parametrize('function', STAR, ids=['eager', 'jit'])
def test_star_with_gamma_one_is_cross_entropy(function):
    """fvcore compares bits, of positives; here within two units in the last place, of negatives as well.

    To the exact values: torch's own cross-entropy is off by a thousandth at a negative's logit of -8.
    """
    inputs = logit(torch.tensor([0.95, 0.90, 0.98, 0.99, 0.05, 0.0001]))
    targets = torch.tensor([1.0, 1, 1, 1, 0, 0])
    value, grad = value_and_grad(lambda x: function(x, targets), inputs)
    exact = value_and_grad(
        lambda x: F.binary_cross_entropy_with_logits(x, targets.double(), reduction='none'), inputs.double()
    )
    assert (ulp_distance(value, exact[0], torch.float32) <= 2).all()
    assert (ulp_distance(grad, exact[1], torch.float32) <= 2).all()


@pytest.mark.parametrize('alpha, silent', [(1, 0), (0, 1)], ids=['alpha 1: negatives', 'alpha 0: positives'])
def test_star_alpha_silences(alpha, silent):
    inputs, targets = logit(torch.tensor([0.05, 0.12, 0.89, 0.79])), torch.tensor([1.0, 1, 0, 0])
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss_star(x, targets, alpha, 3), inputs)
    assert ((value == 0) == (targets == silent)).all()
    assert ((grad == 0) == (targets == silent)).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_star_result_is_float32(dtype):
    inputs = torch.tensor([20.0, -3.0, 0.5], dtype=dtype)
    targets = torch.tensor([0, 1, 1])
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss_star(x, targets, gamma=2), inputs)
    exact = value_and_grad(lambda x: star_formula(x, targets.double(), -1, 2), inputs.double())
    assert value.dtype == torch.float32 and grad.dtype == dtype
    assert_accurate(value, exact[0])
    assert_accurate(grad.float() if dtype == torch.float64 else grad, exact[1])


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_star_jit_gives_the_same_bits(reduction):
    inputs, targets = torch.linspace(-5, 5, 40).reshape(5, 8), (torch.arange(40) % 2).float().reshape(5, 8)
    eager = value_and_grad(lambda x: sigmoid_focal_loss_star(x, targets, 0.25, 2, reduction), inputs)
    scripted = value_and_grad(lambda x: sigmoid_focal_loss_star_jit(x, targets, 0.25, 2, reduction), inputs)
    torch.testing.assert_close(scripted, eager, rtol=0, atol=0)
    assert isinstance(sigmoid_focal_loss_star_jit, torch.jit.ScriptFunction)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)), 'shape'),
        ((torch.zeros(3), torch.zeros(3), 0.25, 2, 'avg'), 'avg'),
        ((torch.zeros(3), torch.zeros(3), 0.25, 0), 'gamma'),
        ((torch.zeros(3), torch.zeros(3), 1.5), 'alpha'),
    ],
    ids=['labels, which fvcore does not take', 'reduction', 'gamma, which fvcore divides by', 'alpha'],
)
def test_star_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss_star(*arguments)
