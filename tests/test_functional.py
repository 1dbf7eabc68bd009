"""The public contract of functional.sigmoid_focal_loss, on every backend: forms, reductions, layouts, errors."""

import itertools

import pytest
import torch

import focal_plugin
from focal_plugin import backend, functional
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


def test_backward_twice_gives_the_same(device):
    pred = predictions(N, C).to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(pred, labels(N).to(device), avg_factor=3.0)
    first, second = (torch.autograd.grad(loss, pred, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_double_backward(device):
    """Through create_graph=True: the derivative of the closed-form gradient, by finite differences in float64."""
    torch.manual_seed(0)
    pred, target = predictions(6, C).double().requires_grad_(), labels(6)
    with focal_plugin.use_backend('auto'):
        assert torch.autograd.gradgradcheck(lambda x: functional.sigmoid_focal_loss(x, target, gamma=1.5), pred)
    single = predictions(6, C).to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(single, target.to(device), gamma=1.5)
    (grad,) = torch.autograd.grad(loss, single, create_graph=True)
    (second,) = torch.autograd.grad(grad.pow(2).sum(), single)
    reference = pred.detach().requires_grad_()
    with focal_plugin.use_backend('torch'):
        loss = functional.sigmoid_focal_loss(reference, target, gamma=1.5)
    (grad,) = torch.autograd.grad(loss, reference, create_graph=True)
    (exact,) = torch.autograd.grad(grad.pow(2).sum(), reference)
    torch.testing.assert_close(second.cpu().double(), exact, rtol=1e-4, atol=1e-9)


def test_gradcheck_in_float64():
    for target in (labels(6), torch.rand(6, C, generator=generator()).double()):
        pred = predictions(6, C).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, t=target: functional.sigmoid_focal_loss(x, t, gamma=1.5), pred)


def test_gradients_of_target_weight_and_avg_factor():
    """mmdet's Python losses give them, so ours do: the torch backend serves."""
    pred = predictions(6, C).double().requires_grad_()
    target = (torch.rand(6, C, generator=generator()) * 0.8 + 0.1).double().requires_grad_()
    weight = torch.rand(6, 1, generator=generator(3)).double().requires_grad_()
    avg_factor = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, y, w, a: functional.sigmoid_focal_loss(x, y, w, avg_factor=a, gamma=1.5),
        (pred, target, weight, avg_factor),
    )
    with focal_plugin.use_backend('native'), pytest.raises(ValueError, match='gives no gradient of target'):
        functional.sigmoid_focal_loss(pred.float(), target.float())


@pytest.mark.compiled
def test_the_same_input_gives_the_same_bits(device):
    pred, target = predictions(4000, 16).to(device), labels(4000, classes=16).to(device)
    first, second = (functional.sigmoid_focal_loss(pred, target) for _ in range(2))
    assert torch.equal(first, second)


def test_any_number_of_threads_gives_the_same_bits():
    pred, target = predictions(20000, 80).requires_grad_(), labels(20000, classes=80)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with focal_plugin.use_backend('native'):
                loss = functional.sigmoid_focal_loss(pred, target)
            results.append((loss.detach(), torch.autograd.grad(loss, pred)[0]))
    finally:
        torch.set_num_threads(before)
    for loss, grad in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(grad, results[0][1])


# ---- errors: the value and the remedy ----


@pytest.mark.parametrize('classes', (C, 9, 16), ids=['a row per thread', 'flat', 'tiles'])
def test_ignored_background(device, classes):
    """mmdet's heads never ignore it; a mask's loss may. A tile of nothing else has no positive."""
    pred = predictions(N, classes).to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(
        pred, torch.full((N,), classes, device=device), reduction='sum', ignore_index=classes
    )
    (grad,) = torch.autograd.grad(loss, pred)
    assert loss == 0 and (grad == 0).all()


BAD = {
    'a label above C': (dict(target=torch.tensor([0, C + 1])), ValueError, r'label 6 is outside \[0, 5\].*num_classes'),
    'a negative label': (dict(target=torch.tensor([-1, 0])), ValueError, r'label -1 .*ignore_index=-1'),
    'float labels': (dict(target=torch.tensor([0.0, 1.0])), TypeError, r'target\.long\(\)'),
    'too few labels': (dict(target=torch.tensor([0])), ValueError, r'must have the shape \(2,\).*got \(1,\)'),
    'a dense target of another shape': (dict(target=torch.zeros(2, 3)), ValueError, r'got \(2, 3\)'),
    'a bare weight a class': (dict(weight=torch.ones(C)), ValueError, r'weight of shape \(5,\).*\(1, 5\)'),
    'an unknown reduction': (dict(reduction='avg'), ValueError, r"Invalid reduction 'avg'"),
    'avg_factor with sum': (dict(reduction='sum', avg_factor=1.0), ValueError, r"reduction='mean'"),
    'avg_factor of two': (dict(avg_factor=torch.ones(2)), ValueError, r'shape \(\) or \(1,\), got \(2,\)'),
    'avg_factor as text': (dict(avg_factor='3'), TypeError, r'avg_factor must be a number'),
    'negative gamma': (dict(gamma=-0.5), ValueError, r'gamma must be at least 0, got -0.5'),
    'infinite gamma': (dict(gamma=float('inf')), ValueError, r'gamma must be at least 0, got inf'),
    'gamma as text': (dict(gamma='2'), TypeError, r"gamma must be a number.*got '2'"),
    'alpha above 1': (dict(alpha=1.5), ValueError, r'alpha must be in \[0, 1\], got 1.5'),
    'a list of alphas too short': (dict(alpha=[0.1, 0.2]), ValueError, r'alpha .*5 classes.*\(2,\)'),
    'an alpha in a list above 1': (dict(alpha=[0.1, 0.2, 0.3, 0.4, 1.1]), ValueError, r'alpha must be in'),
    'integer logits': (dict(pred=torch.zeros(2, C, dtype=torch.long)), TypeError, r'pred\.float\(\)'),
    'logits as a list': (dict(pred=[[0.0]]), TypeError, r'pred must be a tensor'),
    'logits of no dimension': (dict(pred=torch.tensor(1.0)), ValueError, r'0-d'),
    'ignore_index with a dense target': (dict(target=torch.zeros(2, C), ignore_index=3), ValueError, r'needs labels'),
    'a probability above 1': (dict(pred=torch.full((2, C), 1.5), activated=True), ValueError, r'probabilities in \[0, 1\]'),
    'a target elsewhere': (dict(target=torch.zeros(2, device='meta').long()), ValueError, r'target\.to\(pred\.device\)'),
    'a target as a list': (dict(target=[0, 1]), TypeError, r'target must be a tensor'),
}  # fmt: skip


@pytest.mark.parametrize('change, error, message', BAD.values(), ids=BAD)
def test_bad_input(any_backend, change, error, message):
    arguments = dict(pred=torch.zeros(2, C), target=torch.zeros(2, dtype=torch.long), weight=None) | change
    pred, target, weight = (arguments.pop(name) for name in ('pred', 'target', 'weight'))
    if any_backend == 'triton' and message.startswith('label '):
        pytest.skip('on a GPU looking at a label would synchronise: NaN instead, see below')
    if any_backend == 'triton' and not backend.INTERPRETING and message.startswith('probabilities'):
        pytest.skip('on a GPU looking at a probability would synchronise')
    with pytest.raises(error, match=message):
        functional.sigmoid_focal_loss(pred, target, weight, **arguments)


@pytest.mark.triton
@pytest.mark.parametrize('reduction', ('none', 'mean'))
def test_a_bad_label_shows_as_nan_where_looking_would_synchronise(any_backend, device, reduction):
    if any_backend != 'triton':
        pytest.skip('the CPU backends raise')
    target = labels(N)
    target[3], target[7] = C + 1, -1
    leaf = predictions(N, C).to(device).requires_grad_()
    loss = functional.sigmoid_focal_loss(leaf, target.to(device), reduction=reduction)
    loss.sum().backward()
    bad = torch.zeros(N, dtype=torch.bool)
    bad[[3, 7]] = True
    assert (leaf.grad.isnan().all(1).cpu() == bad).all()
    assert (leaf.grad.isnan().any(1).cpu() == bad).all()
    assert loss.isnan().all() if reduction == 'mean' else (loss.isnan().all(1).cpu() == bad).all()


def test_unknown_and_impossible_backends():
    with pytest.raises(ValueError, match=r"unknown backend 'cuda'.*'native'"), focal_plugin.use_backend('cuda'):
        pass
    with (
        focal_plugin.use_backend('native'),
        pytest.raises(ValueError, match=r"'native' can't take logits of torch.float64"),
    ):
        functional.sigmoid_focal_loss(torch.zeros(2, C).double(), torch.zeros(2, dtype=torch.long))
