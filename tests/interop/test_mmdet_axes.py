"""Axes and broadcasting: every class that stands in for one of mmdet's, beside mmdet's own, from one dimension to four."""

import itertools

import pytest
import torch
from mmdet.models.losses import gaussian_focal_loss as gaussian_peer
from mmdet.models.losses import gfocal_loss as peer
from mmdet.models.losses import varifocal_loss as varifocal_peer
from mmdet.registry import MODELS

from focal_plugin.interop import mmdet as functions
from focal_plugin.losses import CLASSES, FusedFocalLoss, FusedQualityFocalLoss, FusedVarifocalLoss
from focal_plugin.math import SPECS
from tests.allocations import Made
from tests.variants import VARIANTS

KINDS = {
    'FocalLoss': {},
    'FocalLoss of probabilities': dict(activated=True),
    'FocalCustomLoss': {},
    'GaussianFocalLoss': {},
    'VarifocalLoss': {},
    'QualityFocalLoss': {},
    'QualityFocalLoss of probabilities': dict(activated=True),
}
SHAPES = [
    *[(6,), (1,)],
    *[(6, 4), (1, 4), (6, 1), (1, 1)],
    (4, 4),  # as many rows as classes
    *[(2, 3, 4), (2, 1, 4), (1, 1, 2), (1, 3, 3)],
    (3, 3, 3),  # no size tells one dimension from another
    *[(2, 3, 4, 5), (2, 1, 4, 5), (1, 3, 4, 5)],
    (4, 3, 4, 4),  # where one-hot rows of (B, H, W) labels happen to have the shape of pred
    (3, 3, 3, 3),
]


def random(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def targets(name, shape):
    """Of every form; (labels, scores) where mmdet's class takes them."""
    soft = random(shape, 1)
    yield 'a heat map', torch.where(soft > 0.7, 1.0, soft)
    yield 'hard', (soft > 0.6).float()
    if name == 'GaussianFocalLoss':
        return
    yield 'integers', (soft > 0.6).long()
    yield 'qualities', torch.where(soft > 0.5, soft, 0.0)
    if len(shape) > 1:
        for axis in (-1, 1):
            rows = [size for i, size in enumerate(shape) if i != axis % len(shape)]
            labels = (random(rows, 2) * (shape[axis] + 1)).long()
            yield f'labels without dimension {axis}', labels
            yield f'(labels, scores) without dimension {axis}', (labels, random(rows, 3))


def weights(shape):
    """None, and one of every shape that any of the two could take."""
    shapes = {(torch.Size(shape).numel(),)}
    shapes |= {tuple(size for i, size in enumerate(shape) if i != left_out) for left_out in range(len(shape))}
    for kept in itertools.product((True, False), repeat=len(shape)):
        sizes = tuple(size if keep else 1 for size, keep in zip(shape, kept, strict=True))
        shapes |= {sizes[fewer:] for fewer in range(len(shape) + 1)}
    return [None, *(random(sizes, 4) for sizes in sorted(shapes))]


def result(loss, pred, *args, **kwargs):
    leaf = pred.clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    value.sum().backward()
    return value.detach(), leaf.grad


def mmdets(loss, *args, **kwargs):
    """mmdet's result, or None where it refuses the call, in one way or another."""
    try:
        return result(loss, *args, **kwargs)
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return None


def is_accident(shape, target, weight, unreduced) -> bool:
    """Whether a value of mmdet's is none to follow.

    Its labels are made one-hot rows in a last dimension, and of maps compared with dimension 1. Where it multiplies a
    weight without a look at its shape, the product may have a row of losses for each of the weight's numbers.
    """
    labels = target[0] if isinstance(target, tuple) else target
    if len(shape) > 2 and labels.dim() < len(shape):
        return True
    if weight is None or unreduced is None:
        return False
    return torch.broadcast_shapes(weight.shape, unreduced) != unreduced


def is_of_rows(shape, weight) -> bool:
    """Whether the shape of a weight stands for one number per row, or an element, here, whatever the sizes.

    To mmdet it is aligned with the last dimensions: where there are as many rows as classes, (N,) is one per class.
    """
    return weight is not None and weight.shape in {shape[:-1], (torch.Size(shape).numel(),)}


def is_refused(shape, weight, unreduced) -> bool:
    """Whether a weight has fewer dimensions, so that its meaning would hang on which sizes happen to be equal."""
    return weight is not None and weight.dim() not in (0, len(unreduced), len(shape))


@pytest.mark.sampled(40)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('name', KINDS)
def test_mmdets_values(name, shape):
    """Wherever mmdet's class gives a value: its shape, itself, and the gradient, for each reduction and avg_factor."""
    kind = name.partition(' ')[0]
    config = KINDS[name] | (dict(num_classes=shape[-1]) if kind == 'FocalCustomLoss' else {})
    theirs, ours = (MODELS.build(dict(type=prefix + kind, **config)) for prefix in ('', 'Fused'))
    probabilities = kind == 'GaussianFocalLoss' or 'activated' in config
    pred = random(shape) if probabilities else random(shape) * 4 - 2
    # What mmdet multiplies by the weight as it is; its FocalLoss gives the weight a shape first.
    unreduced = {'QualityFocalLoss': (shape[0], *shape[2:]), 'VarifocalLoss': shape, 'GaussianFocalLoss': shape}.get(
        kind
    )
    reductions = [('none', None), ('none', 7.0), ('sum', None), ('mean', None)]
    reductions += [('mean', avg_factor) for avg_factor in (7, torch.tensor(7), torch.tensor([7.0]))]
    differing, compared = [], 0
    for (form, target), weight in itertools.product(targets(kind, shape), weights(shape)):
        if mmdets(theirs, pred, target, weight) is None or is_accident(shape, target, weight, unreduced):
            continue
        if unreduced is not None and weight is not None and weight.shape != unreduced:
            if is_of_rows(shape, weight):
                continue
            if is_refused(shape, weight, unreduced):
                with pytest.raises(ValueError, match='weight of shape'):
                    ours(pred, target, weight)
                continue
        for reduction, avg_factor in reductions:
            call = dict(weight=weight, avg_factor=avg_factor, reduction_override=reduction)
            expected = mmdets(theirs, pred, target, **call)
            compared += 1
            try:
                torch.testing.assert_close(result(ours, pred, target, **call), expected, rtol=2e-5, atol=1e-6)
            except (AssertionError, ValueError) as error:
                given = None if weight is None else tuple(weight.shape)
                differing.append((form, given, reduction, avg_factor, str(error)))
    assert differing == []
    assert compared > 0 or (kind, len(shape)) == ('QualityFocalLoss', 1) or kind == 'FocalCustomLoss'


def test_as_many_rows_as_classes():
    """A weight of (N,) is one per row, in every class; mmdet's VarifocalLoss and GaussianFocalLoss take it for one per
    class.
    """
    pred, target, weight = random((4, 4)), (random((4, 4), 1) > 0.6).float(), random((4,), 2)
    for name, kind in CLASSES.items():
        if VARIANTS[name].dense and not VARIANTS[name].required_by_class(4):
            of_row, of_column = (kind()(pred, target, weight=each) for each in (weight, weight[:, None]))
            torch.testing.assert_close(of_row, of_column, rtol=0, atol=0)


def test_the_maps_of_a_tutorial():
    """(B, A, H, W) objectness, dense: the sum is over the anchors."""
    x, y = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    torch.testing.assert_close(FusedQualityFocalLoss()(x, y), torch.tensor(0.25 * 0.6931472))
    maps = random((2, 3, 4, 5))
    assert FusedQualityFocalLoss(reduction='none')(maps, maps).shape == (2, 4, 5)


PER_ROW = [name for name in CLASSES if SPECS[name].scored and SPECS[name].per_row]


@pytest.mark.parametrize('weight', (None, (2, 4, 5), (2, 3, 4, 5), (2, 1, 4, 5), (1, 4, 1)), ids=str)
@pytest.mark.parametrize('form', ('dense', 'labels', 'scored'))
@pytest.mark.parametrize('name', PER_ROW)
def test_losses_of_qualities_share_the_axis(name, form, weight):
    """Maps (B, C, H, W) give what their rows (B * H * W, C) give, for those too that mmdet does not have."""
    kind, maps = CLASSES[name], random((2, 3, 4, 5)) * 4 - 2
    scores, labels = random((2, 4, 5), 1), (random((2, 4, 5), 2) * 4).long()
    target = {'dense': random((2, 3, 4, 5), 3), 'labels': labels, 'scored': (labels, scores)}[form]
    flat = {'labels': labels.flatten(), 'scored': (labels.flatten(), scores.flatten())}
    flat['dense'] = random((2, 3, 4, 5), 3).movedim(1, -1).reshape(-1, 3)
    rows_weight = given = None
    if weight is not None:
        given = random(weight, 4)
        of_rows = given if len(weight) == 3 else given.movedim(1, -1)
        rows_weight = of_rows.expand(2, 4, 5, *of_rows.shape[3:]).reshape(-1, *of_rows.shape[3:])
    for reduction in ('none', 'mean', 'sum'):
        value, grad = result(kind(reduction=reduction), maps, target, given)
        expected, rows_grad = result(
            kind(reduction=reduction), maps.movedim(1, -1).reshape(-1, 3), flat[form], rows_weight
        )
        torch.testing.assert_close(value, expected.reshape(value.shape), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(grad.movedim(1, -1).reshape(-1, 3), rows_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('layout', (torch.contiguous_format, torch.channels_last))
def test_maps_are_read_where_they_lie(layout):
    """And the gradient comes back in their layout."""
    maps = random((2, 3, 8, 8)).contiguous(memory_format=layout).requires_grad_()
    rows = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(0)), random((2, 8, 8), 1)
    with Made() as made:
        (grad,) = torch.autograd.grad(FusedQualityFocalLoss()(maps, rows), maps)
    assert [size for size in made.sizes(maps) if size >= maps.numel()] == [maps.numel()]  # the gradient
    assert grad.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    'target, weight, message',
    (
        (torch.zeros(2, 3, 4).long(), None, r'target of shape \(2, 3, 4\) does not fit pred of shape \(2, 3, 4, 5\)'),
        (torch.zeros(2, 3, 5, 4), None, 'target of shape'),
        (torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4), r'weight of shape \(2, 3, 4\)'),
        (torch.zeros(2, 3, 4, 5), torch.ones(4, 5), 'weight of shape'),
    ),
)
def test_other_shapes_are_refused_with_the_axis(target, weight, message):
    """The classes last, as they were before mmdet's axis was followed, are not taken for anything else."""
    with pytest.raises(ValueError, match=rf'{message}.*dimension 1.*one number per row \(2, 4, 5\).*flatten'):
        FusedQualityFocalLoss()(random((2, 3, 4, 5)), target, weight)


def test_other_losses_keep_the_classes_last():
    """No class of mmdet's has another axis, where it does not fail."""
    pred, labels = random((2, 3, 5)), torch.tensor([[0, 5, 2], [4, 1, 5]])
    for kind in (FusedFocalLoss, FusedVarifocalLoss):
        torch.testing.assert_close(kind()(pred, labels), kind()(pred.view(6, 5), labels.view(6)))


@pytest.mark.parametrize('shape', [shape for shape in SHAPES if len(shape) > 1], ids=str)
def test_functions(shape):
    """The same values under the names of mmdet's functions."""
    pred, target, rows = random(shape) * 4 - 2, random(shape, 1), random((shape[0], *shape[2:]), 2)
    for weight, reduction in itertools.product((None, rows), ('none', 'mean', 'sum')):
        call = dict(weight=weight, reduction=reduction)
        for activated in (False, True):
            args = (pred.sigmoid() if activated else pred, target)
            torch.testing.assert_close(
                functions.quality_focal_loss_tensor_target(*args, activated=activated, **call),
                peer.quality_focal_loss_tensor_target(*args, activated=activated, **call),
                rtol=2e-5, atol=1e-6,
            )  # fmt: skip
        scored = (rows * (shape[1] + 1)).long(), random((shape[0], *shape[2:]), 3)
        one_hot = torch.nn.functional.one_hot(scored[0], shape[1] + 1)[..., :-1].movedim(-1, 1) * scored[1].unsqueeze(1)
        expected = peer.quality_focal_loss_tensor_target(pred, one_hot, **call)
        torch.testing.assert_close(functions.quality_focal_loss(pred, scored, **call), expected, rtol=2e-5, atol=1e-6)
        torch.testing.assert_close(
            functions.quality_focal_loss_with_prob(pred.sigmoid(), scored, **call), expected, rtol=2e-5, atol=1e-6
        )


def test_weights_of_size_one_in_functions():
    pred, target = random((2, 3, 4, 5)), random((2, 3, 4, 5), 1)
    for weight in (random((2, 1, 4, 5), 2), random((1, 3, 1, 1), 2), random((), 2)):
        for ours, theirs in (
            (functions.varifocal_loss, varifocal_peer.varifocal_loss),
            (functions.gaussian_focal_loss, gaussian_peer.gaussian_focal_loss),
        ):
            torch.testing.assert_close(ours(pred, target, weight), theirs(pred, target, weight), rtol=2e-5, atol=0)
