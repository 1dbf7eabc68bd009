"""torchvision.ops.sigmoid_focal_loss under its own signature: its values, gradients and dtypes, scripted and not."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from focal_plugin.interop.torchvision import sigmoid_focal_loss
from tests.interop.peers import formula, signature, value_and_grad
from tests.oracle import assert_accurate, ulp_distance
from tests.oracle import sigmoid_focal_loss as oracle

SHAPES = {'a batch': (6, 3), 'pixels': (2, 1, 4, 5), 'one dimension': (9,), 'a single number': ()}


def data(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    inputs = (4 * torch.randn(shape, generator=generator)).to(dtype)
    return inputs, torch.randint(0, 2, shape, generator=generator).to(dtype)


def test_signature():
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = inspect.Parameter.empty
    assert signature(sigmoid_focal_loss) == [
        ('inputs', kind, required),
        ('targets', kind, required),
        ('alpha', kind, 0.25),
        ('gamma', kind, 2),
        ('reduction', kind, 'none'),
    ]


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_values_and_gradients(shape, reduction):
    inputs, targets = data(shape, torch.float64)
    ours = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, 0.25, 2, reduction), inputs)
    theirs = value_and_grad(lambda x: formula(x, targets, 0.25, 2, reduction), inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)


def test_defaults_are_those_of_retinanet():
    inputs, targets = data((4, 5))
    reference = formula(inputs.double(), targets.double(), 0.25, 2)
    torch.testing.assert_close(sigmoid_focal_loss(inputs, targets).double(), reference, rtol=1e-5, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_result_has_the_dtype_of_inputs(dtype, reduction):
    """Also where it is reduced; torchvision's own test compares it with torch's cross-entropy, dtype included."""
    inputs, targets = data((4, 5), dtype)
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, 0.25, 2, reduction), inputs)
    exact = oracle(inputs, targets, gamma=2, alpha=0.25, reduction=reduction)
    assert value.dtype == dtype and grad.dtype == dtype
    assert_accurate(value, exact.value)
    assert_accurate(grad, exact.grad)


@pytest.mark.parametrize('alpha', [-1.0, 0.0, 0.58, 1.0])
@pytest.mark.parametrize('gamma', [0, 2])
def test_ratio_to_cross_entropy(alpha, gamma):
    """At most torch's cross-entropy, and less by the two factors: within the 1e-5 of torchvision's own test."""
    inputs, targets = data((40, 2))
    loss = sigmoid_focal_loss(inputs, targets, alpha=alpha, gamma=gamma)
    entropy = F.binary_cross_entropy_with_logits(inputs, targets, reduction='none')
    assert (loss <= entropy).all()
    p_t = torch.where(targets == 1, inputs.sigmoid(), (-inputs).sigmoid())
    alpha_t = 1.0 if alpha < 0 else torch.where(targets == 1, alpha, 1 - alpha)
    torch.testing.assert_close(loss / entropy, alpha_t * (1 - p_t) ** gamma, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_gamma_zero_without_alpha_is_cross_entropy(reduction, dtype):
    """torch's, bit for bit, also where torch's is not exact; gradients but for the order of their factors."""
    inputs, targets = data((40, 2), dtype)
    ours = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, alpha=-1, gamma=0, reduction=reduction), inputs)
    theirs = value_and_grad(lambda x: F.binary_cross_entropy_with_logits(x, targets, reduction=reduction), inputs)
    assert torch.equal(ours[0], theirs[0])
    assert (ulp_distance(ours[1], theirs[1], dtype) <= 1).all()


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('gamma', [0, 2])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_scripts(reduction, gamma, dtype):
    """The same bits; more than once, as TorchScript changes plans after the first calls."""
    scripted = torch.jit.script(sigmoid_focal_loss)
    inputs, targets = data((5, 2), dtype)
    eager = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, 0.58, gamma, reduction), inputs)
    for _ in range(4):
        again = value_and_grad(lambda x: scripted(x, targets, alpha=0.58, gamma=gamma, reduction=reduction), inputs)
        torch.testing.assert_close(again, eager, rtol=0, atol=0)


def test_scripted_model_survives_saving(tmp_path):
    """A saved TorchScript module calls the operator by its name."""

    class Head(torch.nn.Module):
        def forward(self, x, y):
            return sigmoid_focal_loss(x, y, reduction='mean')

    inputs, targets = data((5, 2))
    torch.jit.script(Head()).save(tmp_path / 'head.pt')
    assert torch.equal(torch.jit.load(tmp_path / 'head.pt')(inputs, targets), Head()(inputs, targets))


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((torch.zeros(3), torch.zeros(3), 0.25, 2, 'avg'), 'Invalid.*avg'),
        ((torch.zeros(3), torch.zeros(4)), 'shape'),
        ((torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)), 'shape'),
        ((torch.zeros(3), torch.zeros(3), 2.0), 'alpha'),
        ((torch.zeros(3), torch.zeros(3), 2.0, 0), 'alpha'),
        ((torch.zeros(3), torch.zeros(3), 0.25, 0, 'avg'), 'Invalid.*avg'),
    ],
    ids=[
        'reduction',
        'shapes',
        'labels, which torchvision does not take',
        'alpha',
        'alpha, gamma 0',
        'reduction, gamma 0',
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss(*arguments)


def test_scripted_errors_keep_their_message():
    scripted = torch.jit.script(sigmoid_focal_loss)
    with pytest.raises(torch.jit.Error, match='shape of inputs'):
        scripted(torch.zeros(3), torch.zeros(4))
    with pytest.raises(RuntimeError, match='Invalid'):
        scripted(torch.zeros(3), torch.zeros(3), reduction='avg')


@pytest.mark.parametrize('gamma', [0, 2])
def test_mean_of_nothing_is_zero(gamma):
    """torchvision gives NaN."""
    inputs, targets = torch.zeros(0, 4), torch.zeros(0, 4)
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss(x, targets, gamma=gamma, reduction='mean'), inputs)
    assert value == 0 and grad.shape == (0, 4)
