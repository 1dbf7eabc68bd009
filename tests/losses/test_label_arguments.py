"""ignore_index and class_weight as configs write them, for every class with labels."""

import copy
import inspect

import pytest
import torch
from mmdet.models.dense_heads import DeformableDETRHead, DETRHead

from focal_plugin import functional, losses
from focal_plugin.losses import FusedFocalLoss, FusedLoss, FusedSoftmaxFocalLoss
from focal_plugin.maps import Map
from focal_plugin.math import SPECS
from tests.allocations import Made
from tests.losses.built import C, N, built
from tests.variants import VARIANTS

LABELLED = [name for name, variant in VARIANTS.items() if variant.labelled]
SIGMOID = [name for name in LABELLED if SPECS[name].family == 'elementwise']
WEIGHT = [0.5, 1.0, 2.0, 0.0, 3.0]
ARGUMENTS = (dict(ignore_index=-1), dict(class_weight=WEIGHT))


def rows(name):
    """(pred, labels, target): each label, the background's where there is one, and a score for those that take one."""
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(N, C, generator=generator)
    labels = torch.arange(N) % (C + (name in SIGMOID))
    return pred, labels, (labels, torch.rand(N, generator=generator)) if SPECS[name].scored else labels


def with_labels(target, labels):
    return (labels, target[1]) if isinstance(target, tuple) else labels


def value_and_grad(loss, pred, *rest, **kwargs):
    leaf = pred.clone().requires_grad_()
    value = loss(leaf, *rest, **kwargs)
    value.sum().backward()
    return value.detach(), leaf.grad


def test_every_class_with_labels_takes_them():
    for kind in {kind for kind in vars(losses).values() if isinstance(kind, type) and issubclass(kind, FusedLoss)}:
        if 'spec' not in vars(kind):
            continue
        parameters = inspect.signature(kind).parameters
        given = {name for name in ('ignore_index', 'class_weight') if name in parameters}
        with_labels = kind.__name__ not in ('FusedGaussianFocalLoss', 'FusedMaskFocalLoss')
        assert given == ({'ignore_index', 'class_weight'} if with_labels else set())
        for name in given:
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY and parameters[name].default is None
            assert f'    {name} (' in inspect.getdoc(kind)


EVERY_LOGIT = [0.0, 1e-3, 3.0, 17.0, 40.0, 87.0, 87.4, 89.0, 1e3, 6e4, float('inf')]


@pytest.mark.parametrize('dtype', (torch.float32, torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize(
    ('name', 'given'),
    [*((name, {}) for name in LABELLED), ('asymmetric', dict(clip=0.0))],
    ids=str,
)
def test_class_weights_of_one_change_nothing(name, given, dtype):
    """Nor the way that a loss goes: they are weights of rows, no parameters of classes."""
    logits = torch.tensor([sign * x for x in EVERY_LOGIT for sign in (1, -1)], dtype=dtype)
    pred = (
        logits.repeat(C, 1).T.contiguous()
        if SPECS[name].family == 'elementwise'
        else torch.randn(len(logits), C, dtype=dtype)
    )
    pred, labels = pred.repeat(2, 1), torch.arange(2 * len(logits)) % C
    target = (labels, torch.rand(len(labels))) if SPECS[name].scored else labels
    plain, weighted = built(name, **given), built(name, class_weight=[1.0] * C, **given)
    for reduction in ('none', 'sum'):
        found, expected = (
            value_and_grad(loss, pred, target, reduction_override=reduction) for loss in (weighted, plain)
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0, equal_nan=True)
    (one, other) = (loss._problem(pred, target, None, None, 'sum') for loss in (weighted, plain))
    assert one.exponent == other.exponent
    assert (one.per_class_parameters is None) == (other.per_class_parameters is None) == (name != 'equalized_focal')


@pytest.mark.parametrize('ignored', (-1, 2, 255, -(2**40)))
@pytest.mark.parametrize('name', LABELLED)
def test_ignored_rows_give_no_loss_and_no_gradient(name, ignored):
    """They count in the mean, as in the functions."""
    pred, labels, target = rows(name)
    out = torch.arange(N) % 3 == 0
    kept = ~out & (labels != ignored)
    loss, plain = built(name, ignore_index=ignored), built(name)
    theirs = with_labels(target, labels.masked_fill(out, ignored))
    value, grad = value_and_grad(loss, pred, theirs, reduction_override='none')
    expected, expected_grad = value_and_grad(plain, pred, target, reduction_override='none')
    mask = kept if value.dim() == 1 else kept[:, None]
    torch.testing.assert_close(value, expected * mask)
    torch.testing.assert_close(grad, expected_grad * kept[:, None])
    torch.testing.assert_close(loss(pred, theirs), (expected * mask).mean())


@pytest.mark.parametrize(
    'argument', (dict(ignore_index=-1), dict(class_weight=WEIGHT)), ids=('ignore_index', 'class_weight')
)
@pytest.mark.parametrize('name', LABELLED)
def test_on_maps_that_are_read_where_they_lie(name, argument):
    """Two levels of (B, A * C, H, W), as the heads without copies hand them over."""
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 3 * C, side, side, generator=generator) for side in (4, 2)]
    plain = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, C) for level in maps])
    labels = torch.arange(len(plain)) % (C + (name in SIGMOID))
    if 'ignore_index' in argument:
        labels[::3] = -1
    target = (labels, torch.rand(len(plain), generator=generator)) if SPECS[name].scored else labels
    weight = torch.rand(len(plain), generator=generator)
    loss = built(name, **argument)
    lazy = torch.cat([Map(level).permute(0, 2, 3, 1).reshape(-1, C) for level in maps])
    assert not isinstance(lazy, torch.Tensor)
    for reduction in ('mean', 'sum', 'none'):
        ours, expected = (loss(each, target, weight, reduction_override=reduction) for each in (lazy, plain))
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    'argument', (dict(ignore_index=-1), dict(class_weight=WEIGHT)), ids=('ignore_index', 'class_weight')
)
@pytest.mark.parametrize('name', [name for name in SIGMOID if VARIANTS[name].dense])
def test_a_dense_target_has_no_labels(name, argument):
    pred, _, _ = rows(name)
    with pytest.raises(ValueError, match=f'{next(iter(argument))}.*into weight'):
        built(name, **argument)(pred, torch.zeros(N, C))


@pytest.mark.parametrize('value', (True, 1.0, '1'), ids=repr)
def test_ignore_index_is_an_integer(value):
    with pytest.raises(TypeError, match='ignore_index must be an integer label or None'):
        FusedFocalLoss(ignore_index=value)


FORMS = {
    'none': lambda generator: None,
    'one per row': lambda generator: torch.rand(N, generator=generator),
    'a column': lambda generator: torch.rand(N, 1, generator=generator),
    'one per element': lambda generator: torch.rand(N, C, generator=generator),
    'one per element, flat': lambda generator: torch.rand(N * C, generator=generator),
    'one per class': lambda generator: torch.rand(1, C, generator=generator),
}


# Over a softmax the background has a channel, and a weight is one of rows.
OF_ROWS = ('none', 'one per row', 'a column')
WEIGHTED = [(name, form, more) for name in SIGMOID for form in FORMS for more in ([], [0.1])]
WEIGHTED += [(name, form, []) for name in LABELLED if name not in SIGMOID for form in OF_ROWS]


@pytest.mark.parametrize('name, form, background', WEIGHTED)
def test_class_weight_multiplies_rows_by_their_labels(name, form, background):
    """Of labels and weights of any form; without its number the background has 1."""
    pred, labels, target = rows(name)
    weight = FORMS[form](torch.Generator().manual_seed(2))
    factors = torch.tensor([*WEIGHT, *background, 1.0])[labels]
    weighted, plain = built(name, class_weight=WEIGHT + background, loss_weight=2.0), built(name, loss_weight=2.0)
    for reduction in ('none', 'sum'):
        value, grad = value_and_grad(weighted, pred, target, weight, reduction_override=reduction)
        each, each_grad = value_and_grad(plain, pred, target, weight, reduction_override='none')
        each = each * (factors if each.dim() == 1 else factors[:, None])
        torch.testing.assert_close(value, each if reduction == 'none' else each.sum(), rtol=2e-6, atol=1e-7)
        torch.testing.assert_close(grad, each_grad * factors[:, None], rtol=2e-6, atol=1e-9)


def test_as_many_rows_as_classes():
    """A weight of (N,) stays one per row."""
    pred, labels = torch.randn(C, C, generator=torch.Generator().manual_seed(0)), torch.arange(C)
    weight = torch.arange(1.0, C + 1)
    ours = FusedFocalLoss(class_weight=WEIGHT)(pred, labels, weight)
    torch.testing.assert_close(ours, FusedFocalLoss()(pred, labels, weight * torch.tensor(WEIGHT)))


def test_class_weight_in_double_precision():
    pred, labels, _ = rows('focal')
    given = [0.1, 0.2, 0.3, 0.4, 0.7]
    factors = torch.tensor([*given, 1.0], dtype=torch.float64)[labels]
    ours = FusedFocalLoss(class_weight=given)(pred.double(), labels)
    torch.testing.assert_close(ours, FusedFocalLoss()(pred.double(), labels, factors), rtol=1e-15, atol=0)


@pytest.mark.parametrize('background', ([], [0.1]), ids=('C numbers', 'and the background'))
@pytest.mark.parametrize('label', (C + 1, -1, 10**6))
@pytest.mark.parametrize('name', SIGMOID)
def test_a_wrong_label_is_named_all_the_same(name, label, background):
    pred, labels, target = rows(name)
    labels = labels.clone()
    labels[3] = label
    with pytest.raises(ValueError, match=rf'label {label} is outside \[0, {C}\]'):
        built(name, class_weight=WEIGHT + background)(pred, with_labels(target, labels))


@pytest.mark.parametrize('form', OF_ROWS)
def test_weights_of_rows_stay_weights_of_rows(form):
    """Nothing of N x C numbers is made beside what the loss makes without class_weight."""
    pred, labels, _ = rows('focal')
    weight = FORMS[form](torch.Generator().manual_seed(2))
    large = []
    for loss in (FusedFocalLoss(), FusedFocalLoss(class_weight=WEIGHT)):
        leaf = pred.clone().requires_grad_()
        with Made() as made:
            torch.autograd.grad(loss(leaf, labels, weight), leaf)
        large.append([size for size in made.sizes(leaf) if size >= N * C])
    assert large[0] == large[1] == [N * C]  # the gradient


def test_class_weight_is_a_buffer_that_checkpoints_do_not_hold():
    loss = FusedFocalLoss(class_weight=WEIGHT)
    assert [name for name, _ in loss.named_buffers()] == ['class_weight']
    assert loss.state_dict() == {}
    assert copy.deepcopy(loss).class_weight.tolist() == WEIGHT
    assert FusedFocalLoss().class_weight is None


@pytest.mark.parametrize(
    'value, error, message',
    (
        (
            2.0,
            TypeError,
            r'class_weight must hold one number per class, C, or C \+ 1 .*got 2.0.*loss_weight.*_delete_=True',
        ),
        ([1.0, -1.0], ValueError, 'class_weight must be at least 0, got -1.0'),
        ([1.0, float('nan')], ValueError, 'class_weight must be at least 0, got nan'),
        ([1.0, float('inf')], ValueError, 'class_weight must be at least 0, got inf'),
        ([1.0, True], TypeError, 'class_weight must be a number, got True'),
        ('12', TypeError, 'class_weight must be a sequence'),
    ),
)
def test_bad_class_weights(value, error, message):
    with pytest.raises(error, match=message):
        FusedFocalLoss(class_weight=value)


@pytest.mark.parametrize('given', (C - 1, C + 2))
def test_another_number_of_classes(given):
    pred, labels, _ = rows('focal')
    with pytest.raises(
        ValueError, match=f'class_weight holds {given} numbers for logits of {C} classes: write {C}, or {C + 1}'
    ):
        FusedFocalLoss(class_weight=[1.0] * given)(pred, labels)
    with pytest.raises(ValueError, match=f'for logits of {C} classes: write {C}$'):
        FusedSoftmaxFocalLoss(class_weight=[1.0] * (C + 1))(pred, labels.clamp(max=C - 1))


@pytest.mark.parametrize('kind', ('FusedFocalLoss', 'FusedSoftmaxFocalLoss'))
def test_the_class_weight_of_detr(kind):
    """DETRHead makes the list of C + 1 itself, of a number and the background's, and divides by weights of the same."""
    config = dict(type=kind, use_sigmoid=kind == 'FusedFocalLoss', class_weight=1.0, bg_cls_weight=0.1)
    loss = DETRHead(num_classes=C, embed_dims=8, loss_cls=dict(config), train_cfg=None).loss_cls
    torch.testing.assert_close(loss.class_weight.float(), torch.tensor([1.0] * C + [0.1]))
    channels = C if loss.use_sigmoid else C + 1
    pred, labels = torch.randn(9, channels, generator=torch.Generator().manual_seed(0)), torch.arange(9) % (C + 1)
    each = getattr(functional, loss.spec.function)(pred, labels, reduction='none').reshape(9, -1).sum(1)
    expected = (each * torch.where(labels == C, 0.1, 1.0)).sum()
    torch.testing.assert_close(loss(pred, labels, reduction_override='sum'), expected)


def test_the_class_weight_of_other_heads_of_detr():
    """They hand the number over as it stands."""
    config = dict(type='FusedFocalLoss', use_sigmoid=True, class_weight=1.0)
    with pytest.raises(TypeError, match="only mmdet's DETRHead itself makes such a list"):
        DeformableDETRHead(num_classes=C, embed_dims=8, loss_cls=config, train_cfg=None)
