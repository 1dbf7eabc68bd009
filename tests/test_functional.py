"""The public contract of functional.sigmoid_focal_loss, on every backend: forms, reductions, layouts, errors."""

import itertools

import pytest
import torch

from focal_plugin import functional
from tests.oracle.check_focal import check
from tests.oracle.inputs import C, N, generator, labels, predictions

SHAPES = {
    'one class, as MaskFormer': (N, 1),
    'odd classes': (N, C),
    'classes that tiles divide': (N, 16),
    'more classes than a tile': (3, 4100),
    'more elements than a tile': (3000, 3),
    'three dimensions, as YOLO': (2, N, C),
    'one row': (1, C),
    'as many rows as classes': (C, C),
}


@pytest.mark.compiled
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('reduction', ('none', 'mean', 'sum'))
def test_shapes_and_reductions(device, shape, reduction):
    target = labels(*shape[:-1], classes=shape[-1])
    loss, _ = check(
        device, predictions(*shape), target, torch.rand(shape[:-1], generator=generator(3)), reduction=reduction
    )
    assert loss.shape == (shape if reduction == 'none' else ())


def test_labels_of_zero_dimensions(device):
    check(device, predictions(C), torch.tensor(2), reduction='none')


@pytest.mark.parametrize('dtype', (torch.int32, torch.int16, torch.uint8), ids=str)
def test_labels_of_other_integer_types(device, dtype):
    check(device, predictions(N, C), labels(N).to(dtype))


DENSE = {
    'soft floats': lambda: torch.rand(N, C, generator=generator()),
    'soft halves': lambda: torch.rand(N, C, generator=generator()).half(),
    'bool one-hot': lambda: torch.nn.functional.one_hot(labels(N), C + 1)[:, :C].bool(),
    'int64 one-hot, a strided slice': lambda: torch.nn.functional.one_hot(labels(N), C + 1)[:, :C],
    'uint8 masks': lambda: (torch.rand(N, C, generator=generator()) > 0.5).to(torch.uint8),
    'a transposed view': lambda: torch.rand(C, N, generator=generator()).t(),
    'one row for all': lambda: torch.rand(1, C, generator=generator()).expand(N, C),
}


@pytest.mark.parametrize('target', DENSE.values(), ids=DENSE)
def test_dense_targets(device, target):
    check(device, predictions(N, C), target(), torch.rand(N, generator=generator(3)), reduction='none')
    check(device, predictions(N, C), target(), torch.rand(N, generator=generator(3)))


def test_one_dimension(device):
    """Grounding DINO and Mask2Former hand over flat logits, targets and weights."""
    target = torch.rand(5000, generator=generator())
    check(device, predictions(5000), target, torch.rand(5000, generator=generator(3)), avg_factor=7.0)


def test_four_dimensions(device):
    check(device, predictions(2, 3, 7, C), torch.rand(2, 3, 7, C, generator=generator()), reduction='none')


WEIGHTS = {
    'one per row': (N,),
    'one per row, with the last dimension': (N, 1),
    'one per element': (N, C),
    'flat, as FSAF': (N * C,),
    'one per class': (1, C),
}


@pytest.mark.compiled
@pytest.mark.parametrize('shape', WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize('dense', (False, True), ids=('labels', 'dense'))
def test_weights(device, shape, dense):
    target = torch.rand(N, C, generator=generator()) if dense else labels(N)
    weight = torch.rand(shape, generator=generator(3))
    spread = weight.reshape(N, 1) if shape == (N,) else weight.reshape(N, C) if shape == (N * C,) else weight
    for reduction in ('none', 'mean'):
        loss, _ = check(device, predictions(N, C), target, spread.expand(N, C).contiguous(), reduction=reduction)
        leaf = predictions(N, C).to(device).requires_grad_()
        same = functional.sigmoid_focal_loss(leaf, target.to(device), weight.to(device), reduction=reduction)
        torch.testing.assert_close(same, loss)


def test_weight_is_one_a_row_where_rows_and_classes_are_as_many(device):
    weight = torch.rand(C, generator=generator(3))
    check(device, predictions(C, C), labels(C), weight.unsqueeze(1).expand(C, C))
    ours = functional.sigmoid_focal_loss(predictions(C, C).to(device), labels(C).to(device), weight.to(device))
    rows = functional.sigmoid_focal_loss(predictions(C, C).to(device), labels(C).to(device), weight.to(device)[:, None])
    torch.testing.assert_close(ours, rows)


def test_zero_weights_give_zero(device):
    _, grad = check(device, predictions(N, C), labels(N), torch.zeros(N))
    assert (grad == 0).all()


AVG_FACTORS = {
    'float': 13.5,
    'int': 13,
    'zero, where an image has no box': 0,
    '0-d float': torch.tensor(13.5),
    '0-d int64, as SOLO': torch.tensor(13),
    '(1,), as DETR': torch.tensor([13.5]),
}


@pytest.mark.compiled
@pytest.mark.parametrize('avg_factor', AVG_FACTORS.values(), ids=AVG_FACTORS)
def test_avg_factor(device, avg_factor):
    loss, _ = check(device, predictions(N, C), labels(N), avg_factor=avg_factor)
    assert loss.shape == (avg_factor.shape if isinstance(avg_factor, torch.Tensor) else ())
    ignored = functional.sigmoid_focal_loss(
        predictions(N, C).to(device), labels(N).to(device), reduction='none', avg_factor=avg_factor
    )
    plain = functional.sigmoid_focal_loss(predictions(N, C).to(device), labels(N).to(device), reduction='none')
    torch.testing.assert_close(ignored, plain, rtol=0, atol=0)


@pytest.mark.parametrize('reduction', ('none', 'mean'))
def test_ignore_index_silences_rows_even_of_nan(device, reduction):
    pred, target = predictions(N, C), labels(N)
    target[::4] = 255
    check(device, pred, target, torch.rand(N, generator=generator(3)), ignore_index=255, reduction=reduction)
    pred[::4] = float('nan')
    leaf = pred.to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(leaf, target.to(device), ignore_index=255)
    loss.backward()
    assert loss.isfinite()
    assert (leaf.grad[::4] == 0).all()


@pytest.mark.parametrize('shape', ((0, C), (0, 3, C), (4, 0)), ids=str)
def test_nothing_gives_zero_with_a_gradient(device, shape):
    leaf = torch.empty(shape, device=device, requires_grad=True)
    for avg_factor in (None, 2.0, torch.tensor([0.0], device=device)):
        loss = functional.sigmoid_focal_loss(
            leaf, torch.zeros(shape[:-1], dtype=torch.long, device=device), avg_factor=avg_factor
        )
        assert (loss == 0).all()
        loss.sum().backward()
    assert leaf.grad.shape == shape


PARAMETERS = {
    'lists': dict(gamma=[0.0, 0.5, 1.0, 2.0, 5.0], alpha=[0.0, 0.25, 0.5, 0.75, 1.0]),
    'alpha alone': dict(alpha=torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])),
    'gamma alone, no alpha': dict(gamma=torch.tensor([2.0, 1.0, 0.0, 3.0, 0.3]), alpha=None),
}


@pytest.mark.compiled
@pytest.mark.parametrize('parameters', PARAMETERS.values(), ids=PARAMETERS)
@pytest.mark.parametrize('dense', (False, True), ids=('labels', 'dense'))
def test_parameters_a_class(device, parameters, dense):
    target = torch.rand(N, C, generator=generator()) if dense else labels(N)
    check(device, predictions(N, C), target, reduction='none', **parameters)
    check(device, predictions(C, N).t(), target, **parameters)


LAYOUTS = {
    'an NCHW map as (N, H, W, C)': lambda: predictions(2, C, 6, 9).permute(0, 2, 3, 1),
    'an NCHW map of anchors, as RetinaNet': lambda: (
        predictions(2, 3 * C, 6, 9).view(2, 3, C, 6, 9).permute(0, 3, 4, 1, 2)
    ),
    'transposed': lambda: predictions(C, 70).t(),
    'every second class': lambda: predictions(N, 2 * C)[:, ::2],
    'a slice of rows and classes': lambda: predictions(N + 3, C + 3)[1:-2, 1:-2],
    'every second place of a map': lambda: predictions(2, C, 12, 9).permute(0, 2, 3, 1)[:, ::2, ::3],
    'six dimensions that do not join': lambda: predictions(4, 4, 4, 4, 4, C)[::2, ::2, ::2, ::2, ::2],
    'seven dimensions turned round': lambda: predictions(2, 3, 2, 3, 2, 3, C).permute(5, 3, 1, 0, 2, 4, 6),
    'one row for all': lambda: predictions(1, C).expand(N, C),
}


@pytest.mark.compiled
@pytest.mark.parametrize('make', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('reduction', ('none', 'mean'))
def test_layouts(device, make, reduction):
    pred = make()
    target = labels(*pred.shape[:-1])
    weight = torch.rand(pred.shape[:-1], generator=generator(3))
    check(device, pred, target, weight, reduction=reduction)
    check(device, pred, target, torch.rand(pred.shape, generator=generator(3)), reduction=reduction)
    check(device, pred, torch.rand(pred.shape, generator=generator()), weight, reduction=reduction)


@pytest.mark.compiled
@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize('make', itertools.islice(LAYOUTS.values(), 3), ids=itertools.islice(LAYOUTS, 3))
def test_layouts_of_halves(device, dtype, make):
    pred = make().to(dtype)
    loss, grad = check(device, pred, labels(*pred.shape[:-1]), reduction='none')
    assert loss.dtype == grad.dtype == dtype
    loss, grad = check(device, pred, labels(*pred.shape[:-1]))
    assert loss.dtype == torch.float32
    assert grad.dtype == dtype


def test_gradient_keeps_the_layout(device, any_backend):
    pred = predictions(2, C, 6, 9).to(device).permute(0, 2, 3, 1).detach().requires_grad_()
    loss = functional.sigmoid_focal_loss(pred, labels(2, 6, 9).to(device))
    (grad,) = torch.autograd.grad(loss, pred)
    assert grad.stride() == pred.stride()


def test_no_tensor_of_the_caller_is_written(device):
    pred, target, weight = predictions(N, C).to(device), labels(N).to(device), torch.rand(N, device=device)
    copies = [t.clone() for t in (pred, target, weight)]
    functional.sigmoid_focal_loss(pred.requires_grad_(), target, weight).backward()
    for tensor, copy in zip((pred, target, weight), copies, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize('classes', (C, 9, 16), ids=['a row per thread', 'flat', 'tiles'])
def test_ignored_background(device, classes):
    """mmdet's heads never ignore it; a mask's loss may. A tile of nothing else has no positive."""
    pred = predictions(N, classes).to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(
        pred, torch.full((N,), classes, device=device), reduction='sum', ignore_index=classes
    )
    (grad,) = torch.autograd.grad(loss, pred)
    assert loss == 0 and (grad == 0).all()
