"""mmdet's functions of focal loss under their own signatures, against the installed mmdet's."""

import mmdet.models.losses.focal_loss as peer
import pytest
import torch
import torch.nn.functional as F

from focal_plugin.interop import mmdet as ours
from tests.interop.mmdet_calls import CLASSES, ROWS, labelled, random, same
from tests.interop.peers import signature, value_and_grad
from tests.oracle import assert_accurate
from tests.oracle import sigmoid_focal_loss as oracle

NAMES = ['sigmoid_focal_loss', 'py_sigmoid_focal_loss', 'py_focal_loss_with_prob']

CALLS = {
    'defaults': {},
    'a weight per row': {'weight': random(ROWS)},
    'a column of weights': {'weight': random(ROWS, 1)},
    'a weight per logit': {'weight': random(ROWS, CLASSES)},
    'a weight per logit, flat, as FSAF has it': {'weight': random(ROWS * CLASSES)},
    'avg_factor': {'weight': random(ROWS), 'avg_factor': 7},
    'avg_factor, a tensor of one element': {'avg_factor': torch.tensor([7.0], dtype=torch.float64)},
    'avg_factor 0: a batch without positives': {'avg_factor': 0.0},
    'sum': {'reduction': 'sum', 'weight': random(ROWS)},
    'none': {'reduction': 'none', 'weight': random(ROWS)},
    'none does not look at avg_factor': {'reduction': 'none', 'avg_factor': 3.0},
    'other parameters': {'gamma': 1.5, 'alpha': 0.6},
    'gamma 0': {'gamma': 0.0},
}


@pytest.fixture(params=CALLS.values(), ids=CALLS.keys())
def call(request):
    return request.param


@pytest.fixture
def data():
    return labelled()


@pytest.mark.parametrize('name', NAMES)
def test_signatures(name):
    assert signature(getattr(ours, name)) == signature(getattr(peer, name))


def test_labels(data, call):
    """mmdet's own sigmoid_focal_loss needs a GPU; on the CPU its FocalLoss makes one-hot rows, as here."""
    x, labels, one_hot = data
    same(ours.sigmoid_focal_loss, peer.py_sigmoid_focal_loss, x, labels, one_hot, **call)


def test_one_hot(data, call):
    x, _, one_hot = data
    same(ours.py_sigmoid_focal_loss, peer.py_sigmoid_focal_loss, x, one_hot, one_hot, **call)


def test_soft_targets(data, call):
    x, _, _ = data
    soft = random(ROWS, CLASSES)
    same(ours.py_sigmoid_focal_loss, peer.py_sigmoid_focal_loss, x, soft, soft, **call)


def test_probabilities_with_labels(data, call):
    x, labels, _ = data
    same(ours.py_focal_loss_with_prob, peer.py_focal_loss_with_prob, x.sigmoid(), labels, labels, **call)


def test_probabilities_with_one_hot(data, call):
    x, _, one_hot = data
    same(ours.py_focal_loss_with_prob, peer.py_focal_loss_with_prob, x.sigmoid(), one_hot, one_hot, **call)


def test_arguments_by_position(data):
    x, labels, one_hot = data
    rest = (random(ROWS), 1.0, 0.5, 'mean', 3.0)
    same(ours.sigmoid_focal_loss, peer.py_sigmoid_focal_loss, x, labels, one_hot, *rest)


@pytest.mark.parametrize('weight', [random(CLASSES), random(CLASSES, 1)], ids=['(N,)', '(N, 1)'])
def test_as_many_rows_as_classes(weight):
    """A weight of (N,) is one per row, never one per class."""
    x, labels = 4 * random(CLASSES, CLASSES) - 2, torch.arange(1, CLASSES + 1)
    one_hot = F.one_hot(labels, CLASSES + 1)[:, :CLASSES]
    mine = value_and_grad(lambda x: ours.sigmoid_focal_loss(x, labels, weight), x)
    theirs = value_and_grad(lambda x: peer.py_sigmoid_focal_loss(x, one_hot, weight), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=0)


@pytest.mark.parametrize('p', [0.0, 1.0])
def test_probabilities_at_their_ends(p):
    """The clamps of torch's binary_cross_entropy: losses of 100, gradients of 1e12, in float32."""
    x, target = torch.tensor([[p]]), torch.tensor([[1.0 - p]])
    mine = value_and_grad(lambda x: ours.py_focal_loss_with_prob(x, target), x)
    theirs = value_and_grad(lambda x: peer.py_focal_loss_with_prob(x, target), x)
    assert theirs[0] == pytest.approx(100 * (0.75 if p else 0.25)) and theirs[1].abs() > 1e11
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(data, dtype):
    x, labels, _ = data
    x = x.to(dtype)
    exact = oracle(x, labels, avg_factor=4)
    value, grad = value_and_grad(lambda x: ours.sigmoid_focal_loss(x, labels, avg_factor=4), x)
    assert value.dtype == torch.float32
    assert_accurate(value, exact.value)
    assert_accurate(grad, exact.grad)


@pytest.mark.parametrize('name', NAMES)
def test_sum_refuses_avg_factor(name):
    """As mmdet does."""
    for module in (ours, peer):
        if module is peer and name == 'sigmoid_focal_loss':
            continue  # needs a GPU
        with pytest.raises(ValueError, match='avg_factor'):
            getattr(module, name)(random(2, 3), torch.zeros(2, 3).double(), reduction='sum', avg_factor=2)


def test_label_outside_the_classes_is_named(data):
    x, labels, _ = data
    labels[3] = CLASSES + 1
    for function in (ours.sigmoid_focal_loss, ours.py_focal_loss_with_prob):
        with pytest.raises(ValueError, match=rf'{CLASSES + 1}\b'):
            function(x.sigmoid(), labels)


def test_no_rows_give_zero():
    """mmdet gives NaN for their mean."""
    value, grad = value_and_grad(
        lambda x: ours.sigmoid_focal_loss(x, torch.zeros(0, dtype=torch.long)), torch.zeros(0, CLASSES)
    )
    assert value == 0 and grad.shape == (0, CLASSES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_mmdets_own_cuda_path(data, call, mmcv_op):
    """float32, and within the rounding of mmcv's 1 - p at logits within +-4."""
    x, labels, _ = data
    x, labels = x.float().cuda(), labels.cuda()
    call = {key: value.float().cuda() if isinstance(value, torch.Tensor) else value for key, value in call.items()}
    upstream = random(ROWS, CLASSES).float().cuda() if call.get('reduction') == 'none' else None
    theirs = value_and_grad(lambda x: peer.sigmoid_focal_loss(x, labels, **call), x, upstream)
    mine = value_and_grad(lambda x: ours.sigmoid_focal_loss(x, labels, **call), x, upstream)
    torch.testing.assert_close(mine, theirs, rtol=5e-5, atol=1e-9)
