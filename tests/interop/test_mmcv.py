"""mmcv.ops' focal losses under their own signatures, against mmcv's kernels and the oracle."""

import mmcv.ops.focal_loss as peer
import pytest
import torch

from focal_plugin.interop.mmcv import SigmoidFocalLoss, SoftmaxFocalLoss, sigmoid_focal_loss, softmax_focal_loss
from focal_plugin.tensors import INTEGERS
from tests.interop import mmcv_kernel
from tests.interop.peers import signature, value_and_grad
from tests.oracle import assert_accurate
from tests.oracle import sigmoid_focal_loss as oracle
from tests.oracle import softmax as oracle_softmax


@pytest.fixture
def data():
    """Logits, where mmcv is sound, labels with backgrounds among them, and class weights."""
    generator = torch.Generator().manual_seed(0)
    x = 6 * torch.rand(30, 5, generator=generator) - 3
    return x, torch.randint(0, 6, (30,), generator=generator), torch.rand(5, generator=generator)


def mmcv_value_and_grad(x, labels, class_weight, gamma, alpha, reduction):
    """mmcv's Python around its kernel; class weights as they should be, 1 for the background."""
    weight = None if class_weight is None else torch.cat([class_weight, torch.ones(1)])
    value = mmcv_kernel.forward(x, labels, weight, gamma, alpha)
    grad = mmcv_kernel.backward(x, labels, weight, gamma, alpha)
    if reduction == 'none':
        return value, grad
    rows = len(x) if reduction == 'mean' else 1
    return value.sum() / rows, grad / rows


def test_function_signature():
    """The real one is a torch.autograd.Function's apply: its forward tells, after the context."""
    assert signature(sigmoid_focal_loss) == signature(peer.SigmoidFocalLossFunction.forward)[1:]


def test_module_signature():
    assert signature(SigmoidFocalLoss.__init__) == signature(peer.SigmoidFocalLoss.__init__)
    assert signature(SigmoidFocalLoss.forward) == signature(peer.SigmoidFocalLoss.forward)
    assert repr(SigmoidFocalLoss(2.0, 0.25)) == repr(peer.SigmoidFocalLoss(2.0, 0.25))


@pytest.mark.parametrize('weighted', [False, True], ids=['plain', 'class weights'])
@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (0.5, 0.75), (0.0, 0.5)])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_values_and_gradients(data, weighted, gamma, alpha, reduction):
    """1e-5: at logits within +-3 mmcv loses at most 20 * 2**-24 to its 1 - p, to the power of gamma."""
    x, labels, class_weight = data
    class_weight = class_weight if weighted else None
    ours = value_and_grad(lambda x: sigmoid_focal_loss(x, labels, gamma, alpha, class_weight, reduction), x)
    theirs = mmcv_value_and_grad(x, labels, class_weight, gamma, alpha, reduction)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


def test_defaults_divide_by_the_rows(data):
    x, labels, _ = data
    exact = oracle(x, labels, gamma=2, alpha=0.25, reduction='sum')
    assert sigmoid_focal_loss(x, labels).item() == pytest.approx(float(exact.value) / 30, rel=1e-5)


def test_weight_is_that_of_the_label_for_the_whole_row():
    x = torch.zeros(2, 3)
    plain = sigmoid_focal_loss(x, torch.tensor([1, 3]), 2.0, 0.25, None, 'none')
    weighted = sigmoid_focal_loss(x, torch.tensor([1, 3]), 2.0, 0.25, torch.tensor([5.0, 7.0, 9.0]), 'none')
    torch.testing.assert_close(weighted / plain, torch.tensor([[7.0] * 3, [1.0] * 3]))


def test_upstream_gradient_and_layout(data):
    """A transposed view is read as it lies, and its gradient comes back in the same layout."""
    x, labels, class_weight = data
    upstream = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    view = x.t().contiguous().t().requires_grad_()
    sigmoid_focal_loss(view, labels, 2.0, 0.25, class_weight, 'none').backward(upstream)
    rows = torch.cat([class_weight, torch.ones(1)])[labels]
    exact = oracle(x, labels, rows, gamma=2, alpha=0.25, reduction='none', upstream=upstream)
    assert_accurate(view.grad, exact.grad)


@pytest.mark.parametrize('dtype', INTEGERS, ids=str)
def test_labels_of_any_integer_dtype_pick_their_weights(dtype):
    x, weight = torch.randn(6, 5), torch.rand(5)
    labels = torch.arange(6) % 5  # of uint8 as many would be a mask of rows
    for loss in (sigmoid_focal_loss, softmax_focal_loss):
        torch.testing.assert_close(loss(x, labels.to(dtype), weight=weight), loss(x, labels, weight=weight))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_at_logits_where_mmcv_fails(dtype):
    """float16: inf and NaN in mmcv; bfloat16: not implemented there. Reduced losses of halves are float32."""
    x, labels = torch.tensor([[9.39, -20.0], [100.0, 12.0]], dtype=dtype), torch.tensor([0, 2])
    exact = oracle(x, labels, reduction='sum')
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss(x, labels), x)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert_accurate(value, exact.value / 2)
    assert_accurate(grad, exact.grad / 2)


def test_module_keeps_its_weight_as_a_buffer(data):
    x, labels, class_weight = data
    module = SigmoidFocalLoss(2.0, 0.25, class_weight, 'sum')
    assert list(module.state_dict()) == list(peer.SigmoidFocalLoss(2.0, 0.25, class_weight).state_dict()) == ['weight']
    assert module(x, labels) == sigmoid_focal_loss(x, labels, 2.0, 0.25, class_weight, 'sum')
    assert module.half().weight.dtype == torch.float16


def test_weight_gets_no_gradient(data):
    x, labels, class_weight = data
    class_weight.requires_grad_()
    sigmoid_focal_loss(x.requires_grad_(), labels, 2.0, 0.25, class_weight).backward()
    assert class_weight.grad is None and x.grad is not None


@pytest.mark.parametrize(
    'changes, error, message',
    [
        ({'target': torch.tensor([0, 6])}, ValueError, '6'),
        ({'target': torch.tensor([0, -1])}, ValueError, '-1'),
        ({'target': torch.tensor([0, 6]), 'weight': torch.ones(5)}, ValueError, '6'),
        ({'target': torch.tensor([0.0, 1.0])}, TypeError, 'integer'),
        ({'target': torch.zeros(2, 5)}, ValueError, 'shape'),
        ({'target': torch.zeros(3, dtype=torch.long)}, ValueError, 'shape'),
        ({'weight': torch.ones(6)}, ValueError, 'each of the 5 classes'),
        ({'reduction': 'avg'}, ValueError, 'avg'),
        ({'gamma': -1.0}, ValueError, 'gamma'),
    ],
    ids=[
        *(
            'label above the background',
            'negative label',
            'bad label with class weights',
            'float labels',
            'dense target',
        ),
        *('another number of rows', 'a weight for the background', 'reduction', 'gamma'),
    ],
)
def test_bad_arguments(changes, error, message):
    arguments = {'input': torch.zeros(2, 5), 'target': torch.tensor([0, 5]), **changes}
    with pytest.raises(error, match=message):
        sigmoid_focal_loss(**arguments)


def test_no_rows_give_zero():
    """mmcv gives NaN for their mean."""
    value, grad = value_and_grad(lambda x: sigmoid_focal_loss(x, torch.zeros(0, dtype=torch.long)), torch.zeros(0, 4))
    assert value == 0 and grad.shape == (0, 4)


@pytest.fixture
def softmax_data(data):
    """Labels of classes alone, some negative: mmcv's kernel ignores those."""
    x, labels, class_weight = data
    return x, torch.where(labels == 5, -1, labels), class_weight


def softmax_formula(x, labels, class_weight, gamma, alpha, reduction):
    """In float64, through torch's autograd."""
    rows = labels.clamp(min=0)
    log_p = x.log_softmax(1).gather(1, rows.unsqueeze(1)).squeeze(1)
    loss = -alpha * (1 - log_p.exp()) ** gamma * log_p * (labels >= 0)
    if class_weight is not None:
        loss = loss * class_weight.double()[rows]
    return {'none': lambda: loss, 'mean': lambda: loss.sum() / len(x), 'sum': loss.sum}[reduction]()


def test_softmax_signatures():
    assert signature(softmax_focal_loss) == signature(peer.SoftmaxFocalLossFunction.forward)[1:]
    assert signature(SoftmaxFocalLoss.__init__) == signature(peer.SoftmaxFocalLoss.__init__)
    assert signature(SoftmaxFocalLoss.forward) == signature(peer.SoftmaxFocalLoss.forward)
    assert repr(SoftmaxFocalLoss(2.0, 0.25)) == repr(peer.SoftmaxFocalLoss(2.0, 0.25))


@pytest.mark.parametrize('weighted', [False, True], ids=['plain', 'class weights'])
@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (0.5, 0.75), (0.0, 0.5)])
def test_softmax_equals_mmcv(softmax_data, weighted, gamma, alpha):
    """Of each row: mmcv's own Python reduces by sum and by the number of rows."""
    x, labels, class_weight = softmax_data
    class_weight = class_weight if weighted else None
    value, grad = value_and_grad(lambda x: softmax_focal_loss(x, labels, gamma, alpha, class_weight, 'none'), x)
    theirs = mmcv_kernel.softmax(x, labels, class_weight, gamma, alpha)
    torch.testing.assert_close((value, grad), theirs, rtol=1e-5, atol=0)
    assert (value[labels < 0] == 0).all() and (grad[labels < 0] == 0).all()


@pytest.mark.parametrize('weighted', [False, True], ids=['plain', 'class weights'])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_softmax_reductions(softmax_data, weighted, reduction):
    x, labels, class_weight = softmax_data
    class_weight = class_weight if weighted else None
    upstream = torch.rand(30, generator=torch.Generator().manual_seed(1)) if reduction == 'none' else None
    ours = value_and_grad(lambda x: softmax_focal_loss(x, labels, 2.0, 0.25, class_weight, reduction), x, upstream)
    exact = value_and_grad(
        lambda x: softmax_formula(x, labels, class_weight, 2.0, 0.25, reduction), x.double(), upstream
    )
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=0, check_dtype=False)


def test_softmax_defaults_divide_by_the_rows(softmax_data):
    x, labels, _ = softmax_data
    exact = softmax_formula(x.double(), labels, None, 2.0, 0.25, 'sum')
    assert softmax_focal_loss(x, labels).item() == pytest.approx(exact.item() / 30, rel=1e-5)


def test_softmax_beyond_the_range_of_float32():
    """mmcv stops at FLT_MIN: 87.3 * alpha, where the loss goes on with the logit."""
    x, labels = torch.tensor([[0.0, 400.0]]), torch.tensor([0])
    assert mmcv_kernel.softmax(x, labels)[0].item() == pytest.approx(0.25 * 87.34, rel=1e-4)
    assert softmax_focal_loss(x, labels, 2.0, 0.25, None, 'none').item() == 100.0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_softmax_dtypes(dtype):
    x, labels = torch.tensor([[9.5, -20.0, 0.5], [100.0, 12.0, 3.0]], dtype=dtype), torch.tensor([2, 0])
    value, grad = value_and_grad(lambda x: softmax_focal_loss(x, labels), x)
    exact = oracle_softmax.softmax_focal_loss(x, labels)
    assert value.dtype == torch.promote_types(dtype, torch.float32) and grad.dtype == dtype
    assert_accurate(value, exact.value)
    assert_accurate(grad, exact.grad)


def test_softmax_module(softmax_data):
    x, labels, class_weight = softmax_data
    module = SoftmaxFocalLoss(2.0, 0.25, class_weight, 'sum')
    assert list(module.state_dict()) == list(peer.SoftmaxFocalLoss(2.0, 0.25, class_weight).state_dict()) == ['weight']
    assert module(x, labels) == softmax_focal_loss(x, labels, 2.0, 0.25, class_weight, 'sum')


def test_softmax_weight_gets_no_gradient(softmax_data):
    x, labels, class_weight = softmax_data
    class_weight.requires_grad_()
    softmax_focal_loss(x.requires_grad_(), labels, 2.0, 0.25, class_weight).backward()
    assert class_weight.grad is None and x.grad is not None


@pytest.mark.parametrize(
    'changes, error, message',
    [
        ({'target': torch.tensor([0, 5])}, ValueError, '5'),
        ({'target': torch.tensor([0, 5]), 'weight': torch.ones(5)}, ValueError, '5'),
        ({'target': torch.tensor([0.0, 1.0])}, TypeError, 'integer'),
        ({'target': torch.zeros(2, 5)}, ValueError, 'shape'),
        ({'weight': torch.ones(6)}, ValueError, 'each of the 5 classes'),
        ({'reduction': 'avg'}, ValueError, 'avg'),
        ({'gamma': -1.0}, ValueError, 'gamma'),
    ],
    ids=[
        *('label C, where mmcv reads the next row', 'label C with class weights', 'float labels', 'dense target'),
        *('a weight too many', 'reduction', 'gamma'),
    ],
)
def test_softmax_bad_arguments(changes, error, message):
    arguments = {'input': torch.zeros(2, 5), 'target': torch.tensor([0, 4]), **changes}
    with pytest.raises(error, match=message):
        softmax_focal_loss(**arguments)


def test_softmax_of_no_rows_is_zero():
    """mmcv's max() fails."""
    value, grad = value_and_grad(lambda x: softmax_focal_loss(x, torch.zeros(0, dtype=torch.long)), torch.zeros(0, 4))
    assert value == 0 and grad.shape == (0, 4)
