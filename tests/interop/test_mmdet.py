"""mmdet's focal loss functions under their own signatures, against the installed mmdet's."""

import inspect

import mmdet.models.losses.focal_loss as peer
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import gaussian_focal_loss as gaussian_peer
from mmdet.models.losses import gfocal_loss as quality_peer
from mmdet.models.losses import varifocal_loss as varifocal_peer

from focal_plugin.interop import mmdet as ours
from tests.interop.peers import signature, value_and_grad
from tests.oracle import assert_accurate
from tests.oracle import sigmoid_focal_loss as oracle

NAMES = ['sigmoid_focal_loss', 'py_sigmoid_focal_loss', 'py_focal_loss_with_prob']
ROWS, CLASSES = 12, 5


def random(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


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
    generator = torch.Generator().manual_seed(0)
    x = 8 * torch.rand(ROWS, CLASSES, generator=generator, dtype=torch.float64) - 4
    labels = torch.randint(0, CLASSES + 1, (ROWS,), generator=generator)
    return x, labels, F.one_hot(labels, CLASSES + 1)[:, :CLASSES]


def same(mine, theirs, pred, my_target, their_target, *rest, **arguments):
    """In float64, where mmdet's formula is sound at these logits: values, and gradients under a random upstream one.

    The absolute tolerance is for soft targets, where the terms of a gradient cancel.
    """
    upstream = None
    if arguments.get('reduction') == 'none':
        upstream = random(ROWS) if 'quality' in mine.__name__ else random(ROWS, CLASSES)
    a = value_and_grad(lambda x: mine(x, my_target, *rest, **arguments), pred, upstream)
    b = value_and_grad(lambda x: theirs(x, their_target, *rest, **arguments), pred, upstream)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)


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


DECORATED = {
    'quality_focal_loss': quality_peer,
    'quality_focal_loss_tensor_target': quality_peer,
    'quality_focal_loss_with_prob': quality_peer,
    'gaussian_focal_loss': gaussian_peer,
}
PLAIN = {'varifocal_loss': varifocal_peer, 'gaussian_focal_loss_with_pos_inds': gaussian_peer}


@pytest.mark.parametrize('name', PLAIN)
def test_signatures_of_the_others(name):
    assert signature(getattr(ours, name)) == signature(getattr(PLAIN[name], name))


@pytest.mark.parametrize('name', DECORATED)
def test_signatures_with_what_weighted_loss_adds(name):
    """Its wrapper takes pred, target, weight, reduction, avg_factor, and the function's own by keyword."""
    theirs = getattr(DECORATED[name], name)
    wrapper = inspect.signature(theirs, follow_wrapped=False).parameters.values()
    own = list(inspect.signature(theirs).parameters.values())[2:]
    mine = inspect.signature(getattr(ours, name)).parameters.values()
    positional = [p for p in wrapper if p.kind is not p.VAR_KEYWORD]
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in [*positional, *own]]
    assert [p.kind for p in mine] == [p.kind for p in positional] + [inspect.Parameter.KEYWORD_ONLY] * len(own)


ROW_CALLS = {
    'defaults': {},
    'a weight per row': {'weight': random(ROWS)},
    'avg_factor': {'weight': random(ROWS), 'avg_factor': 7},
    'avg_factor 0: a batch without positives': {'avg_factor': 0.0},
    'sum': {'reduction': 'sum', 'weight': random(ROWS)},
    'none': {'reduction': 'none', 'weight': random(ROWS)},
    'another beta': {'beta': 1.5},
    'beta 1': {'beta': 1.0},
}


@pytest.fixture(params=ROW_CALLS.values(), ids=ROW_CALLS.keys())
def row_call(request):
    return request.param


@pytest.fixture
def scored(data):
    """Logits, the pair of labels and qualities, and the same as dense values."""
    x, labels, one_hot = data
    scores = 0.05 + 0.9 * random(ROWS)
    return x, (labels, scores), one_hot * scores[:, None]


def test_quality_focal(scored, row_call):
    x, pair, _ = scored
    same(ours.quality_focal_loss, quality_peer.quality_focal_loss, x, pair, pair, **row_call)


def test_quality_focal_of_dense_targets(scored, row_call):
    x, _, dense = scored
    peer_function = quality_peer.quality_focal_loss_tensor_target
    same(ours.quality_focal_loss_tensor_target, peer_function, x, dense, dense, **row_call)


def test_quality_focal_of_dense_targets_and_probabilities(scored, row_call):
    x, _, dense = scored
    peer_function = quality_peer.quality_focal_loss_tensor_target
    same(ours.quality_focal_loss_tensor_target, peer_function, x.sigmoid(), dense, dense, activated=True, **row_call)


def test_quality_focal_of_probabilities(scored, row_call):
    x, pair, _ = scored
    peer_function = quality_peer.quality_focal_loss_with_prob
    same(ours.quality_focal_loss_with_prob, peer_function, x.sigmoid(), pair, pair, **row_call)


VARIFOCAL_CALLS = {
    'defaults': {},
    'a column of weights': {'weight': random(ROWS, 1)},
    'a weight per logit': {'weight': random(ROWS, CLASSES), 'avg_factor': 7},
    'sum': {'reduction': 'sum'},
    'none': {'reduction': 'none', 'weight': random(ROWS, 1)},
    'other parameters': {'alpha': 0.4, 'gamma': 1.5},
    'alpha above 1': {'alpha': 1.5},
    'not weighted': {'iou_weighted': False},
}


@pytest.mark.parametrize('call', VARIFOCAL_CALLS.values(), ids=VARIFOCAL_CALLS)
def test_varifocal(scored, call):
    x, _, dense = scored
    same(ours.varifocal_loss, varifocal_peer.varifocal_loss, x, dense, dense, **call)


def test_varifocal_by_position(scored):
    x, _, dense = scored
    rest = (random(ROWS, 1), 0.6, 1.0, False, 'mean', 3.0)
    same(ours.varifocal_loss, varifocal_peer.varifocal_loss, x, dense, dense, *rest)


@pytest.fixture
def heatmap(data):
    """Probabilities and a heatmap with exact ones in it."""
    x, _, one_hot = data
    return x.sigmoid(), torch.where(one_hot == 1, 1.0, 0.9 * random(ROWS, CLASSES))


GAUSSIAN_CALLS = {
    'defaults': {},
    'a weight per pixel': {'weight': random(ROWS, CLASSES), 'avg_factor': 7},
    'avg_factor': {'avg_factor': 3},
    'sum': {'reduction': 'sum'},
    'none': {'reduction': 'none'},
    'other exponents': {'alpha': 1.5, 'gamma': 3.0},
    'other weights': {'pos_weight': 0.25, 'neg_weight': 0.75},
}


@pytest.mark.parametrize('call', GAUSSIAN_CALLS.values(), ids=GAUSSIAN_CALLS)
def test_gaussian_focal(heatmap, call):
    p, target = heatmap
    same(ours.gaussian_focal_loss, gaussian_peer.gaussian_focal_loss, p, target, target, **call)


@pytest.mark.parametrize(
    'call',
    [{}, {'reduction': 'sum'}, {'avg_factor': 3}, {'alpha': 1.5, 'gamma': 3.0, 'pos_weight': 0.25, 'neg_weight': 0.75}],
    ids=['defaults', 'sum', 'avg_factor', 'other parameters'],
)
def test_gaussian_focal_with_positives_named(heatmap, call):
    """One of them twice, and none of them the ones of the heatmap."""
    p, target = heatmap
    rest = (torch.tensor([0, 3, 3, 7]), torch.tensor([1, 0, 0, 4]))
    name = 'gaussian_focal_loss_with_pos_inds'
    same(getattr(ours, name), getattr(gaussian_peer, name), p, target, target, *rest, **call)


def test_positives_named_need_a_reduction(heatmap):
    p, target = heatmap
    index = torch.tensor([0, 3])
    with pytest.raises(ValueError, match="reduction='none'"):
        ours.gaussian_focal_loss_with_pos_inds(p, target, index, index, reduction='none')


@pytest.mark.parametrize('name', [*DECORATED, 'varifocal_loss'])
def test_sum_of_the_others_refuses_avg_factor(scored, name):
    """As mmdet does."""
    x, pair, dense = scored
    target = pair if name in ('quality_focal_loss', 'quality_focal_loss_with_prob') else dense
    for module in (ours, (DECORATED | PLAIN)[name]):
        with pytest.raises(ValueError, match='avg_factor'):
            getattr(module, name)(x.sigmoid(), target, reduction='sum', avg_factor=2)


def test_quality_label_outside_the_classes_is_named(scored):
    """Background to mmdet."""
    x, (labels, scores), _ = scored
    labels[3] = CLASSES + 1
    with pytest.raises(ValueError, match=rf'{CLASSES + 1}\b'):
        ours.quality_focal_loss(x, (labels, scores))
