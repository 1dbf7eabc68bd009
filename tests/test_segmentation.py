"""The loss of mmsegmentation's decode heads: every form of its call against the oracle, and what it allocates."""

import copy
import math
import pickle

import pytest
import torch

import focal_plugin
from focal_plugin.segmentation import FusedSegFocalLoss
from tests import oracle
from tests.allocations import allocated
from tests.oracle.check_segmentation import check, definition

C, SHAPE = 5, (2, 5, 6, 7)
ALPHA, GAMMA, CLASSES = [0.1, 0.25, 0.5, 0.75, 0.9], [0.0, 0.5, 1.0, 2.0, 3.5], [1.0, 2.0, 0.0, 0.5, 3.0]


def logits(shape=SHAPE) -> torch.Tensor:
    return torch.randn(shape) * 4


def labels(shape=SHAPE, ignored=255) -> torch.Tensor:
    """Of every class and of none, a part of them ignored."""
    found = torch.randint(0, shape[1] + 1, (shape[0], *shape[2:]))
    return found.masked_fill(torch.rand(found.shape) < 0.2, ignored)


ARGUMENTS = {
    "mmseg's defaults": {},
    'other numbers': dict(gamma=1.5, alpha=0.25, loss_weight=0.4),
    'no alpha': dict(alpha=None),
    'alpha per class': dict(alpha=ALPHA),
    'gamma per class': dict(gamma=GAMMA),
    'a class is left out': dict(class_weight=CLASSES),
    'all per class': dict(gamma=GAMMA, alpha=ALPHA, class_weight=CLASSES, loss_weight=2.0),
    'tensors': dict(gamma=torch.tensor(GAMMA), alpha=torch.tensor(ALPHA), class_weight=torch.tensor(CLASSES)),
}


@pytest.mark.compiled
@pytest.mark.parametrize('arguments', ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments(any_backend, device, arguments):
    check(FusedSegFocalLoss(**arguments), logits(), labels(), device=device)


SHAPES = {
    'rows of points': (30, 5),
    'points of PointRend': (3, 5, 11),
    'a volume': (2, 5, 3, 4, 2),
    'one class': (2, 1, 6, 7),
    'as many pixels a side as classes': (5, 5, 5, 5),
    'a single pixel': (1, 5, 1, 1),
}


@pytest.mark.compiled
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_shapes(any_backend, device, shape):
    check(FusedSegFocalLoss(), logits(shape), labels(shape), device=device)


TARGETS = {
    'one-hot integers': lambda: torch.nn.functional.one_hot(labels(ignored=C), C + 1)[..., :C].movedim(-1, 1),
    'one-hot bools': lambda: torch.nn.functional.one_hot(labels(ignored=C), C + 1)[..., :C].movedim(-1, 1).bool(),
    'soft values': lambda: torch.rand(SHAPE),
    'labels as bytes': lambda: labels().to(torch.uint8),
    'labels of a crop': lambda: labels((2, 5, 12, 14))[:, 3:9, ::2],
}


@pytest.mark.compiled
@pytest.mark.parametrize('make', TARGETS.values(), ids=TARGETS)
def test_targets(any_backend, device, make):
    check(FusedSegFocalLoss(), logits(), make(), device=device)


def test_a_dense_target_has_no_label_to_ignore(any_backend, device):
    """mmseg drops the pixels whose greatest value is that of class 255, where there are so many."""
    pred, target = logits((2, 300, 2, 2)), torch.zeros(2, 300, 2, 2)
    target[:, 255] = 1
    check(FusedSegFocalLoss(), pred, target, device=device)


@pytest.mark.compiled
@pytest.mark.parametrize('ignored', (255, -1, -100, 1, None), ids=str)
@pytest.mark.parametrize('classes', (5, 1))
def test_ignored_pixels_count_in_the_mean_and_in_nothing_else(any_backend, device, ignored, classes):
    shape = (2, classes, 6, 7)
    pred, target = logits(shape), labels(shape, ignored=classes if ignored is None else ignored)
    check(FusedSegFocalLoss(), pred, target, device=device, ignore_index=ignored)
    if ignored is not None:
        where = (target == ignored).unsqueeze(1).expand(shape)
        leaf = pred.masked_fill(where, math.nan).to(device).requires_grad_()
        loss = FusedSegFocalLoss()(leaf, target.to(device), ignore_index=ignored)
        loss.backward()
        assert loss.isfinite() and (leaf.grad.cpu()[where] == 0).all()


ALONG = torch.arange(5.0)
# As mmseg takes them, rows in the order of the pixels, and as its samplers make them; beside each the same of pred's shape.
WEIGHTS = {
    'per pixel': (lambda w: w, lambda w: w.unsqueeze(1)),
    'per pixel, flat': (lambda w: w.flatten(), lambda w: w.unsqueeze(1)),
    'a column of rows': (lambda w: w.reshape(-1, 1), lambda w: w.unsqueeze(1)),
    'rows of classes': (lambda w: w.reshape(-1, 1) * ALONG, lambda w: w.unsqueeze(1) * ALONG.reshape(1, 5, 1, 1)),
    'a row of classes': (lambda w: ALONG[None], lambda w: ALONG.reshape(1, 5, 1, 1)),
    "of pred's shape": (lambda w: w.unsqueeze(1).expand(SHAPE), lambda w: w.unsqueeze(1)),
    'per image': (lambda w: w[:, :1, :1].unsqueeze(1), lambda w: w[:, :1, :1].unsqueeze(1)),
}  # fmt: skip


@pytest.mark.compiled
@pytest.mark.parametrize('form', WEIGHTS)
def test_weights(any_backend, device, form):
    pixels = torch.rand(2, 6, 7)
    given, same = (make(pixels) for make in WEIGHTS[form])
    for arguments in ({}, ARGUMENTS['all per class']):
        check(FusedSegFocalLoss(**arguments), logits(), labels(), given, same, device=device)


@pytest.mark.parametrize('average', (7.0, 0, torch.tensor(7.0)), ids=('a number', 'none at all', 'a tensor'))
def test_avg_factor(any_backend, device, average):
    """Divides the sum of what is not ignored, as mmseg's; 0 gives no infinity where all pixels are ignored."""
    check(FusedSegFocalLoss(), logits(), labels(), device=device, avg_factor=average)
    nothing = torch.full((2, 6, 7), 255)
    assert FusedSegFocalLoss()(logits().to(device), nothing.to(device), avg_factor=0) == 0


LAYOUTS = {
    'contiguous': lambda shape: torch.randn(shape),
    'channels last': lambda shape: torch.randn(shape).to(memory_format=torch.channels_last),
    'a slice of channels': lambda shape: torch.randn(shape[0], shape[1] + 3, *shape[2:])[:, 2:-1],
    'a crop of the map': lambda shape: torch.randn(*shape[:2], shape[2] + 4, shape[3] + 4)[..., 1:-3, 2:-2],
    'width and height exchanged': lambda shape: torch.randn(*shape[:2], shape[3], shape[2]).transpose(2, 3),
}


@pytest.mark.sampled(interpreted=2)
@pytest.mark.parametrize('make', LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(any_backend, device, make):
    pred, target = make(SHAPE), labels()
    right = {how: definition(pred, target, reduction=how) for how in ('none', 'mean')}
    for reduction in right:
        pred = pred.to(device).detach().requires_grad_()
        value = FusedSegFocalLoss(reduction=reduction)(pred, target.to(device))
        value.sum().backward()
        exact = right[reduction]
        oracle.assert_accurate(value.detach().cpu(), exact.value, exact.value_terms)
        oracle.assert_accurate(pred.grad.cpu(), exact.grad, exact.grad_terms, exact.through_p)
        pred.grad = None


@pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')
@pytest.mark.parametrize('make', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('arguments', ({}, ARGUMENTS['all per class']), ids=('numbers', 'per class'))
def test_nothing_is_made_but_the_gradient(make, arguments):
    """No rows, no one-hot, no product of the weights: none has the size of the logits."""
    pred = make((2, 5, 150, 200)).requires_grad_()
    target, weight, loss = labels((2, 5, 150, 200)), torch.rand(2, 150, 200), FusedSegFocalLoss(**arguments)
    size = pred.numel() * pred.element_size()

    def step():
        torch.autograd.grad(loss(pred, target, weight), pred)

    step()
    assert size <= allocated(step) <= 1.02 * size


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
def test_half_logits_of_mixed_precision(any_backend, device, dtype):
    pred, target = logits().to(dtype), labels()
    check(FusedSegFocalLoss(), pred, target, device=device)
    assert FusedSegFocalLoss()(pred.to(device), target.to(device)).dtype == torch.float32


def test_logits_at_which_others_overflow(any_backend, device):
    """Of a confident background a float32 sigmoid is 1 and log(1 - p) infinite, unless the cross-entropy takes logits."""
    pred = torch.tensor([-1e4, -100.0, -20.0, 20.0, 100.0, 1e4]).reshape(6, 1).expand(6, 2).clone()
    check(FusedSegFocalLoss(), pred, torch.tensor([0, 1, 2, 0, 1, 2]), device=device)


def mistaken(**call):
    return lambda: FusedSegFocalLoss()(**{'pred': logits(), 'target': labels(), **call})


MISTAKES = {
    'a softmax': (lambda: FusedSegFocalLoss(use_sigmoid=False), ValueError, 'use_sigmoid=True, got False'),
    'gamma below 0': (lambda: FusedSegFocalLoss(gamma=-1.0), ValueError, 'gamma must be at least 0.*-1'),
    'alpha above 1': (lambda: FusedSegFocalLoss(alpha=[0.5, 2.0]), ValueError, r'alpha must be in \[0, 1\], got 2.0'),
    'a file as class_weight': (lambda: FusedSegFocalLoss(class_weight='x.npy'), TypeError, "class_weight.*'x.npy'"),
    'class_weight below 0': (lambda: FusedSegFocalLoss(class_weight=[-1.0]), ValueError, 'class_weight.*-1'),
    'an infinite loss_weight': (lambda: FusedSegFocalLoss(loss_weight=math.inf), ValueError, 'loss_weight.*inf'),
    'loss_weight as a string': (lambda: FusedSegFocalLoss(loss_weight='1'), TypeError, "loss_weight.*'1'"),
    'an unknown reduction': (lambda: FusedSegFocalLoss(reduction='max'), ValueError, "reduction 'max'"),
    'a loss_name that is none': (lambda: FusedSegFocalLoss(loss_name=None), TypeError, 'loss_name.*None'),
    'too few numbers': (lambda: FusedSegFocalLoss(alpha=[0.5, 0.5])(logits(), labels()), ValueError, 'alpha holds 2 .* 5'),
    'too many factors': (lambda: FusedSegFocalLoss(class_weight=[1] * 6)(logits(), labels()), ValueError, 'weight holds 6'),
    'an unknown override': (mistaken(reduction_override='max'), ValueError, "reduction_override.*'max'"),
    'a sum over avg_factor': (mistaken(reduction_override='sum', avg_factor=2.0), ValueError, 'avg_factor'),
    'pred of one dimension': (mistaken(pred=torch.zeros(3), target=torch.zeros(3)[0].long()), ValueError, r'pred.*\(3,\)'),
    'labels with a channel': (mistaken(target=labels().unsqueeze(1)), ValueError, r'target.squeeze\(1\)'),
    'labels of another size': (mistaken(target=labels()[:, :3]), ValueError, r'\(2, 3, 7\).*\(2, 6, 7\)'),
    'labels as floats': (mistaken(target=labels().float()), TypeError, r'target.*torch.float32.*target.long\(\)'),
    'labels as bools': (mistaken(target=labels().bool()), TypeError, r'target.*torch.bool.*target.long\(\)'),
    'labels of one class as bools': (
        mistaken(pred=logits((2, 1, 6, 7)), target=torch.zeros(2, 6, 7).bool()), TypeError, r'target.*target.long\(\)'
    ),
    'labels of one class as floats': (mistaken(pred=logits((2, 1, 6, 7)), target=torch.zeros(2, 6, 7)), TypeError, 'target'),
    'a label above C': (mistaken(target=torch.full((2, 6, 7), 6)), ValueError, r'label 6 .*decode heads'),
    'a label above 1 of one class': (
        mistaken(pred=logits((2, 1, 3)), target=torch.full((2, 3), 2)), ValueError, r'label 2 .*1, 0 for none.*decode head'
    ),
    'ignore_index as a float': (mistaken(ignore_index=255.0), TypeError, 'ignore_index.*255.0'),
    'a weight of another size': (mistaken(weight=torch.ones(2, 3)), ValueError, r'weight.*\(2, 3\).*\(2, 5, 6, 7\)'),
    'probabilities above 1': (mistaken(target=torch.full(SHAPE, 2.0)), ValueError, 'target'),
    'pred as integers': (mistaken(pred=torch.zeros(SHAPE).long()), TypeError, r'pred.*pred.float\(\)'),
}  # fmt: skip


@pytest.mark.parametrize(('call', 'error', 'said'), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(call, error, said):
    with pytest.raises(error, match=said):
        call()


@pytest.mark.parametrize('arguments', ARGUMENTS.values(), ids=ARGUMENTS)
def test_copies_are_the_same_loss_and_a_cast_of_the_model_changes_nothing(arguments):
    loss, pred, target = FusedSegFocalLoss(**arguments), logits(), labels()
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss).half()):
        assert torch.equal(other(pred, target), loss(pred, target))
    assert loss.state_dict() == {} and 'reduction' in repr(loss)


@pytest.mark.parametrize(
    'changed', (dict(gamma=1.0), dict(alpha=[0.1, 0.2, 0.3, 0.4, 0.5]), dict(class_weight=[1, 2, 3, 4, 5]))
)
def test_what_is_changed_after_construction_takes_effect(changed):
    loss, pred, target = FusedSegFocalLoss(), logits(), labels()
    loss(pred, target)
    for name, value in changed.items():
        setattr(loss, name, value)
    assert torch.equal(loss(pred, target), FusedSegFocalLoss(**changed)(pred, target))


def test_no_images_give_no_loss(any_backend, device):
    pred = torch.zeros(0, 5, 6, 7, device=device, requires_grad=True)
    loss = FusedSegFocalLoss()(pred, torch.zeros(0, 6, 7, dtype=torch.int64, device=device))
    loss.backward()
    assert loss == 0 and pred.grad.shape == pred.shape
