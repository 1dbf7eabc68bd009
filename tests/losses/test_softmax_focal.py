"""The softmax focal loss: the row-wise family of every backend against the float64 oracle, and the identities."""

import pytest
import torch
import torch.nn.functional as F

import focal_plugin
from focal_plugin import functional
from tests.conftest import ON_A_GPU
from tests.oracle import softmax as oracle_softmax
from tests.oracle.check_softmax import LIMITS, check, check_every_margin, check_limit, inputs
from tests.oracle.inputs import COMPILED_HALVES, DTYPES


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def served(any_backend, dtype):
    if dtype == torch.float64 and any_backend != 'torch':
        pytest.skip('float64 is served by the torch backend')


@pytest.mark.parametrize('dtype', COMPILED_HALVES, ids=str)
@pytest.mark.parametrize('gamma', (0, 0.5, 1, 1.5, 2, 5))
def test_every_margin(any_backend, device, dtype, gamma):
    served(any_backend, dtype)
    check_every_margin(device, dtype, gamma)


@pytest.mark.parametrize('offset', (9000.0, -9000.0))
def test_rows_far_from_zero(device, offset):
    """There the logarithm of a row's sum, as one float32, would be off by 5e-4, and the gradient with it."""
    pred, labels, _ = inputs(40, 6)
    check(device, pred + offset, labels, reduction='none')


SHAPES = {
    'two classes': (37, 2),
    'odd classes': (37, 5),
    'LVIS with its background': (3, 1204),
    'longer than registers hold': (2, 17000),
    'three dimensions': (2, 7, 33),
    'one row': (1, 9),
    'as many rows as classes': (5, 5),
}


@pytest.mark.compiled
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('reduction', ('none', 'mean', 'sum'))
def test_shapes_and_reductions(device, shape, reduction):
    loss, _ = check(device, *inputs(*shape), reduction=reduction)
    assert loss.shape == (shape[:-1] if reduction == 'none' else ())


def test_one_class_is_refused(device):
    """It is certain whatever its logit, and would train nothing."""
    pred, labels, weight = inputs(6, 1)
    with pytest.raises(ValueError, match=r'a softmax over one class is 1 whatever its logit.*FusedFocalLoss'):
        functional.softmax_focal_loss(pred.to(device), labels.to(device), weight.to(device))


@pytest.mark.compiled
@pytest.mark.parametrize('dtype', DTYPES[:3], ids=str)
def test_an_nchw_map_is_read_where_it_lies(device, dtype):
    pred, labels, weight = inputs(2, 6, 7, 9, dtype=dtype)
    view = pred.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    _, grad = check(device, view, labels, weight, reduction='none')
    assert grad.stride() == view.stride()


VIEWS = {
    'every second class': lambda: inputs(9, 12)[0][:, ::2],
    'transposed': lambda: inputs(70, 9)[0].t(),
    'four dimensions of rows that do not join': lambda: inputs(4, 6, 4, 6, 5)[0][::2, ::2, ::2, ::2],
}


@pytest.mark.parametrize('make', VIEWS.values(), ids=VIEWS)
def test_views(device, make):
    pred = make()
    labels = torch.randint(0, pred.size(-1), pred.shape[:-1], generator=generator(1))
    check(device, pred, labels, torch.rand(labels.shape, generator=generator(2)), reduction='none')
    check(device, pred, labels)


def test_a_weight_with_the_last_dimension(device):
    pred, labels, weight = inputs(11, 5)
    check(device, pred, labels, weight)
    leaf = pred.to(device)
    one = functional.softmax_focal_loss(leaf, labels.to(device), weight.to(device))
    assert torch.equal(one, functional.softmax_focal_loss(leaf, labels.to(device), weight[:, None].to(device)))


@pytest.mark.parametrize('avg_factor', (7, 0.0, torch.tensor(7), torch.tensor([7.0])), ids=str)
def test_avg_factor(device, avg_factor):
    loss, _ = check(device, *inputs(11, 5), avg_factor=avg_factor)
    assert loss.shape == getattr(avg_factor, 'shape', ())


@pytest.mark.parametrize('alpha', (None, 0.7, [0.1, 0.9, 0.5, 0.3, 1.0]), ids=('none', 'number', 'one per class'))
def test_alpha(device, alpha):
    check(device, *inputs(23, 5), alpha=alpha, reduction='none')


def test_gamma_of_each_class(device):
    check(device, *inputs(23, 5), gamma=[0.0, 0.5, 1.0, 2.0, 3.0], reduction='none')


def test_ignored_rows_give_nothing_whatever_they_hold(device):
    pred, labels, weight = inputs(11, 5)
    labels[3], pred[3, 2] = 255, float('nan')
    loss, grad = check(device, pred, labels, weight, ignore_index=255, reduction='none')
    assert loss[3] == 0 and (grad[3] == 0).all()


def test_nan_stays_in_its_row(device):
    pred, labels, _ = inputs(5, 4)
    pred[2, 1] = float('nan')
    leaf = pred.to(device).requires_grad_()
    loss = functional.softmax_focal_loss(leaf, labels.to(device), reduction='none')
    loss.sum().backward()
    bad = torch.tensor([False, False, True, False, False])
    assert (loss.isnan().cpu() == bad).all() and (leaf.grad.isnan().any(1).cpu() == bad).all()


@pytest.mark.parametrize(('pred', 'value', 'grad'), LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize('gamma', (0.0, 1.5, 2.0))
def test_infinite_logits_give_the_limit(device, pred, value, grad, gamma):
    check_limit(device, pred, value, grad, gamma)


@pytest.mark.parametrize('of_label', (True, False), ids=('the label is impossible', 'another class is'))
def test_a_logit_of_minus_infinity(device, of_label):
    pred, labels = torch.tensor([[0.0, float('-inf'), 1.0]]), torch.tensor([1 if of_label else 0])
    leaf = pred.to(device).requires_grad_()
    loss = functional.softmax_focal_loss(leaf, labels.to(device), gamma=2.0, alpha=None)
    loss.backward()
    if of_label:
        assert loss == float('inf')
    else:
        two = functional.softmax_focal_loss(pred[:, [0, 2]].to(device), labels.to(device), gamma=2.0, alpha=None)
        torch.testing.assert_close(loss.detach(), two)
        assert leaf.grad[0, 1] == 0 and leaf.grad.isfinite().all()


def test_no_rows_give_zero_with_a_gradient(device):
    pred = torch.zeros(0, 5, device=device, requires_grad=True)
    loss = functional.softmax_focal_loss(pred, torch.zeros(0, dtype=torch.long, device=device))
    loss.backward()
    assert loss == 0 and pred.grad.shape == (0, 5)


# ---- identities ----


def test_gamma_0_is_weighted_cross_entropy(device):
    pred, labels, _ = inputs(50, 6)
    alpha = torch.tensor([0.1, 0.9, 0.5, 0.3, 1.0, 0.0])
    loss = functional.softmax_focal_loss(
        pred.to(device), labels.to(device), gamma=0, alpha=alpha.to(device), reduction='none'
    )
    exact = F.cross_entropy(pred.double(), labels, weight=alpha.double(), reduction='none')
    torch.testing.assert_close(loss.cpu().double(), exact, rtol=1e-5, atol=0)


def test_two_classes_are_a_sigmoid_of_their_difference(device):
    pred, _, _ = inputs(50, 2)
    ours = functional.softmax_focal_loss(
        pred.to(device), torch.zeros(50, dtype=torch.long, device=device), alpha=None, reduction='none'
    )
    difference = pred.double()[:, :1] - pred.double()[:, 1:]
    with focal_plugin.use_backend('auto'):
        sigmoid = functional.sigmoid_focal_loss(
            difference, torch.zeros(50, dtype=torch.long), alpha=None, reduction='none'
        )
    torch.testing.assert_close(ours.cpu().double(), sigmoid[:, 0], rtol=1e-5, atol=1e-38)


def test_the_gradient_of_a_row_sums_to_zero(device):
    _, grad = check(device, *inputs(50, 6), reduction='sum')
    assert (grad.double().sum(1).abs() <= 1e-6 * grad.abs().max()).all()


BAD = {
    'label C': (dict(target=torch.tensor([0, 5])), ValueError, r'label 5 is outside \[0, 5\)'),
    'a label far outside': (dict(target=torch.tensor([0, 2**40])), ValueError, r'label 1099511627776 '),
    'a negative label': (dict(target=torch.tensor([-1, 0])), ValueError, r'label -1 .*ignore_index=-1'),
    'a one-hot target': (dict(target=torch.zeros(2, 5)), ValueError, r'argmax'),
    'a weight per element': (dict(weight=torch.ones(2, 5)), ValueError, r'one number per row'),
    'no classes': (dict(pred=torch.zeros(2, 0)), ValueError, r'a softmax needs classes'),
    'a list of alphas too short': (dict(alpha=[0.1, 0.2]), ValueError, r'alpha .*5 classes'),
    'negative gamma': (dict(gamma=-1.0), ValueError, r'gamma must be at least 0'),
}  # fmt: skip


@pytest.mark.parametrize('change, error, message', BAD.values(), ids=BAD)
def test_bad_input(any_backend, change, error, message):
    if any_backend in ON_A_GPU and message.startswith('label '):
        pytest.skip('on a GPU looking at a label would synchronise: NaN instead, see below')
    arguments = dict(pred=torch.zeros(2, 5), target=torch.zeros(2, dtype=torch.long), weight=None) | change
    with pytest.raises(error, match=message):
        functional.softmax_focal_loss(**arguments)


@pytest.mark.triton
def test_a_bad_label_shows_as_nan_where_looking_would_synchronise(any_backend, device):
    if any_backend not in ON_A_GPU:
        pytest.skip('the CPU backends raise')
    pred, labels, _ = inputs(9, 5)
    labels[2], labels[4] = 5, -1
    leaf = pred.to(device).requires_grad_()
    loss = functional.softmax_focal_loss(leaf, labels.to(device), reduction='none')
    loss.sum().backward()
    bad = torch.zeros(9, dtype=torch.bool)
    bad[[2, 4]] = True
    assert (loss.isnan().cpu() == bad).all() and (leaf.grad.isnan().all(1).cpu() == bad).all()


def test_the_class_is_for_heads_with_a_softmax():
    from focal_plugin.losses import FusedSoftmaxFocalLoss

    assert FusedSoftmaxFocalLoss.use_sigmoid is False and FusedSoftmaxFocalLoss().use_sigmoid is False
    with pytest.raises(ValueError, match='softmax loss: write use_sigmoid=False, got True'):
        FusedSoftmaxFocalLoss(use_sigmoid=True)
    pred, labels, weight = inputs(9, 5)
    ours = FusedSoftmaxFocalLoss(gamma=1.5, alpha=0.5, loss_weight=2.0)(pred, labels, weight, avg_factor=4)
    exact = oracle_softmax.softmax_focal_loss(pred, labels, weight, gamma=1.5, alpha=0.5, avg_factor=4)
    assert float(ours) == pytest.approx(2 * float(exact.value), rel=1e-5)
