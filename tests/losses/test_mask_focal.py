"""The focal loss of masks: the label's own channel, one number per instance, as each mask head of mmdet calls it."""

import math

import numpy as np
import pytest
import torch

import focal_plugin
from focal_plugin import functional
from focal_plugin.losses import FusedFocalLoss, FusedMaskFocalLoss
from focal_plugin.ops import library
from tests import oracle
from tests.allocations import allocated
from tests.conftest import ON_A_GPU, one_graph
from tests.oracle import assert_accurate
from tests.oracle.check_masks import check_own_channel, expected, masks

# (n, C, H, W), each with its reason
SHAPES = {
    "Mask R-CNN's 28 x 28": (5, 7, 28, 28),
    'class-agnostic': (4, 1, 9, 11),
    'one instance': (1, 3, 6, 5),
    'few large masks': (2, 2, 120, 131),  # longer than a tile: rows are shared among programs, and by threads
    'a pixel a mask': (6, 4, 1, 1),
    'more instances than a tile has rows': (150, 2, 4, 4),
}


@pytest.mark.compiled
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('layout', (torch.contiguous_format, torch.channels_last), ids=('NCHW', 'channels last'))
def test_an_instance_is_the_mean_of_its_own_channel(any_backend, device, shape, layout):
    check_own_channel(device, shape, layout)


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16, torch.float64), ids=str)
def test_dtypes(any_backend, device, dtype):
    if dtype == torch.float64 and any_backend != 'torch':
        pytest.skip("float64 is the torch backend's")
    pred, target, labels, weight = masks((5, 3, 14, 14), dtype)
    upstream = torch.ones(5)
    value, terms, *grads = expected(pred, target, labels, weight, upstream)
    leaf = pred.to(device).requires_grad_()
    loss = functional.mask_focal_loss(leaf, target.to(device), labels.to(device), weight.to(device), reduction='none')
    loss.sum().backward()
    assert loss.dtype == dtype
    assert_accurate(loss.detach().cpu(), value, terms)
    assert_accurate(leaf.grad.cpu(), *grads)


@pytest.mark.parametrize('kind', (torch.bool, torch.uint8, torch.int64, torch.float16, torch.int32), ids=str)
def test_masks_of_any_type(any_backend, device, kind):
    pred, target, labels, _ = masks((3, 2, 8, 8))
    hard = target > 0.5
    loss = functional.mask_focal_loss(pred.to(device), hard.to(device, kind), labels.to(device))
    value, *_ = expected(pred, hard.double(), labels, torch.ones(3), torch.ones(3))
    assert loss.item() == pytest.approx(value.mean(), rel=1e-6)


AVERAGES = {
    'their mean': (dict(), lambda each: each.mean()),
    'their sum': (dict(reduction='sum'), lambda each: each.sum()),
    'over a number': (dict(avg_factor=7), lambda each: each.sum() / (7 + oracle.EPS)),
    'over a tensor': (dict(avg_factor=torch.tensor([7.0])), lambda each: each.sum() / (7 + oracle.EPS)),
}


@pytest.mark.parametrize(('options', 'reduce'), AVERAGES.values(), ids=AVERAGES)
@pytest.mark.parametrize('with_labels', (True, False), ids=('with labels', 'a mask per instance'))
def test_reductions(any_backend, device, options, reduce, with_labels):
    pred, target, labels, weight = masks((6, 3, 10, 7))
    value, _, grad, terms, through = expected(pred, target, labels, weight, torch.ones(6))
    divisor = reduce(value) / value.sum()
    if not with_labels:
        rows = torch.arange(6)
        pred, grad, terms, through = (each[rows, labels] for each in (pred, grad, terms, through))
    leaf = pred.to(device).requires_grad_()
    options = {name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in options.items()}
    loss = functional.mask_focal_loss(
        leaf, target.to(device), labels.to(device) if with_labels else None, weight.to(device), **options
    )
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.sum().item() == pytest.approx(reduce(value), rel=2e-6)
    assert_accurate(leaf.grad.cpu(), grad * divisor, terms * divisor, through * divisor)


def test_weights_of_pixels(any_backend, device):
    pred, target, labels, _ = masks((3, 2, 8, 8))
    weight = torch.rand(3, 8, 8)
    loss = functional.mask_focal_loss(
        pred.to(device), target.to(device), labels.to(device), weight.to(device), reduction='none'
    )
    selected = pred[torch.arange(3), labels]
    exact = oracle.sigmoid_focal_loss(selected, target, weight, reduction='none').value.reshape(3, -1).mean(1)
    assert np.allclose(loss.cpu().double().numpy(), exact, rtol=1e-6)


@pytest.mark.parametrize('with_labels', (True, False), ids=('with labels', 'a mask per instance'))
def test_probabilities(any_backend, device, with_labels):
    """Decoupled SOLO and QueryInst hand over probabilities."""
    pred, target, labels, weight = masks((4, 3, 6, 6))
    p = pred.sigmoid()
    value, terms, *grads = expected(p, target, labels, weight, torch.ones(4), activated=True)
    if not with_labels:
        p, *grads = (each[torch.arange(4), labels] for each in (p, *grads))
    leaf = p.to(device).requires_grad_()
    loss = functional.mask_focal_loss(
        leaf,
        target.to(device),
        labels.to(device) if with_labels else None,
        weight.to(device),
        reduction='none',
        activated=True,
    )
    loss.sum().backward()
    assert_accurate(loss.detach().cpu(), value, terms)
    assert_accurate(leaf.grad.cpu(), *grads)


@pytest.mark.parametrize('shape', ((0, 5, 28, 28), (0, 1, 7, 7)))
@pytest.mark.parametrize('reduction', ('mean', 'sum', 'none'))
def test_no_instances(any_backend, device, shape, reduction):
    pred = torch.zeros(shape, device=device, requires_grad=True)
    loss = functional.mask_focal_loss(
        pred, torch.zeros(0, *shape[2:], device=device), torch.zeros(0, dtype=torch.int64, device=device),
        reduction=reduction,
    )  # fmt: skip
    loss.sum().backward()
    assert loss.sum().item() == 0
    assert pred.grad.shape == shape


def test_masks_without_pixels_are_0(any_backend, device):
    pred = torch.zeros(3, 2, 0, 4, device=device, requires_grad=True)
    labels = torch.zeros(3, dtype=torch.int64, device=device)
    loss = functional.mask_focal_loss(pred, torch.zeros(3, 0, 4, device=device), labels, reduction='none')
    assert loss.tolist() == [0, 0, 0]


def test_strides_that_do_not_join(any_backend, device):
    """A window of a larger map: its pixels lie in no line."""
    pred, target, labels, _ = masks((3, 2, 9, 12))
    window = pred[:, :, 1:8, 2:9]
    inside = target[:, 1:8, 2:9]
    loss = functional.mask_focal_loss(window.to(device), inside.to(device), labels.to(device))
    same = functional.mask_focal_loss(window.contiguous().to(device), inside.contiguous().to(device), labels.to(device))
    assert loss.item() == pytest.approx(same.item(), rel=1e-6)


@pytest.mark.parametrize('label', (-1, 3, 2**40))
def test_a_label_without_a_channel(any_backend, device, label):
    pred, target, _, _ = masks((3, 3, 4, 4))
    labels = torch.tensor([0, label, 2])
    if device == 'cpu' and any_backend not in ON_A_GPU:
        with pytest.raises(ValueError, match=rf'label {label} is outside \[0, 3\)'):
            functional.mask_focal_loss(pred, target, labels)
        return
    leaf = pred.to(device).requires_grad_()
    loss = functional.mask_focal_loss(leaf, target.to(device), labels.to(device), reduction='none')
    loss.sum().backward()
    assert loss.isnan().tolist() == [False, True, False]
    assert leaf.grad[1].isnan().any()
    assert not leaf.grad[[0, 2]].isnan().any()


def test_a_label_without_a_channel_of_masks_without_pixels(any_backend):
    if any_backend in ON_A_GPU:
        pytest.skip('nobody looks on a GPU')
    with pytest.raises(ValueError, match=r'label 7 is outside \[0, 3\)'):
        functional.mask_focal_loss(torch.zeros(2, 3, 0, 4), torch.zeros(2, 0, 4), torch.tensor([0, 7]))


def test_a_bad_pixel_stays_in_its_instance(any_backend, device):
    pred, target, labels, _ = masks((3, 2, 8, 8))
    pred[1, labels[1], 3, 3] = math.nan
    pred[2, 1 - labels[2], 0, 0] = math.nan  # in another channel, which is not read
    loss = functional.mask_focal_loss(pred.to(device), target.to(device), labels.to(device), reduction='none')
    assert loss.isnan().tolist() == [False, True, False]


WRONG = {
    'no labels': (dict(labels=None), 'has 3 channels: write labels'),
    'labels of another number': (
        dict(labels=torch.zeros(3, dtype=torch.int64)),
        r'labels must be integers of shape \(4,\)',
    ),
    'labels of fractions': (dict(labels=torch.zeros(4)), 'labels must be integers'),
    'masks of another size': (dict(target=torch.zeros(4, 5, 6)), 'does not fit pred'),
    'masks of one class more': (dict(target=torch.zeros(4, 3, 5, 5)), 'leave labels out'),
    'a weight per row of pixels': (dict(weight=torch.zeros(4, 5)), 'one number per instance'),
    'a list': (dict(target=[1]), 'target must be a tensor'),
    'labels elsewhere': (dict(labels=torch.zeros(4, dtype=torch.int64, device='meta')), 'labels is on meta'),
    'a negative gamma': (dict(gamma=-1), 'gamma must be at least 0'),
    'alpha per class': (dict(alpha=[0.1, 0.2, 0.3]), 'alpha must be a number'),
    'sum with avg_factor': (dict(reduction='sum', avg_factor=1.0), "can't be used with reduction='sum'"),
}


@pytest.mark.parametrize(('changed', 'message'), WRONG.values(), ids=WRONG)
def test_errors_say_what_to_write(changed, message):
    right = dict(target=torch.zeros(4, 5, 5), labels=torch.zeros(4, dtype=torch.int64))
    with pytest.raises((ValueError, TypeError), match=message):
        functional.mask_focal_loss(torch.zeros(4, 3, 5, 5), **right | changed)


def test_class_of_the_registry(any_backend, device):
    from mmdet.registry import MODELS

    loss = MODELS.build(dict(type='FusedMaskFocalLoss', gamma=1.5, alpha=0.5, loss_weight=3.0))
    assert isinstance(loss, FusedMaskFocalLoss)
    pred, target, labels, _ = masks((4, 3, 5, 5))
    pred, target, labels = (each.to(device) for each in (pred, target, labels))
    same = functional.mask_focal_loss(pred, target, labels, gamma=1.5, alpha=0.5, reduction='none') * 3
    assert torch.allclose(loss(pred, target, labels, reduction_override='none'), same, rtol=1e-6)
    assert torch.allclose(loss(pred, target, labels), same.mean(), rtol=1e-6)
    assert torch.allclose(loss(pred, target, labels, avg_factor=8), same.sum() / 8, rtol=1e-6)


def test_mask_rcnn_and_point_heads_call_it():
    """The calls of FCNMaskHead and MaskPointHead, class-agnostic too: the third argument is labels (mmdet#5879)."""
    loss = FusedMaskFocalLoss()
    for channels in (4, 1):
        pred, target, labels, _ = masks((5, channels, 28, 28))
        assert loss(pred, target, labels).isfinite()
        assert loss(pred.flatten(2), target.flatten(1), labels).item() == loss(pred, target, labels).item()
    with pytest.raises(TypeError, match='holds labels'):
        FusedFocalLoss()(pred, target, labels)


def test_maskformer_hands_flat_pixels_with_inverted_labels():
    """(M, 1) logits against labels 1 - mask: label 0 is the only class, label 1 the background."""
    pred, target, *_ = masks((3, 1, 16, 16))
    mask = (target > 0.5).long()
    loss = FusedFocalLoss(loss_weight=20.0)(pred.reshape(-1, 1), 1 - mask.reshape(-1), avg_factor=mask.numel())
    alone = functional.mask_focal_loss(pred, mask)
    assert loss.item() == pytest.approx(20 * alone.item(), rel=1e-6)


def test_mask2former_hands_flat_soft_targets():
    pred, target, *_ = masks((3, 1, 16, 16))
    loss = FusedFocalLoss()(pred.flatten(), target.flatten(), avg_factor=target.numel())
    assert loss.item() == pytest.approx(functional.mask_focal_loss(pred, target).item(), rel=1e-6)


@pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')
def test_nothing_is_gathered():
    """Forward and backward allocate the gradient and nothing of the masks' size beside it."""
    pred, target, labels, _ = masks((40, 20, 28, 28))
    leaf = pred.requires_grad_()
    logits = leaf.numel() * 4

    def step():
        torch.autograd.grad(functional.mask_focal_loss(leaf, target, labels), leaf)

    step()
    assert logits <= allocated(step) <= logits + target.numel() // 4  # one gathered copy would be 4 bytes per pixel


def test_opcheck(any_backend, device):
    if any_backend == 'torch':
        pytest.skip('plain PyTorch operations need no operator of their own')
    pred, target, labels, _ = (each.to(device) for each in masks((4, 3, 6, 5)))
    for output, upstream in (('row', torch.rand(4, device=device)), ('sum', torch.rand((), device=device))):
        problem = (
            *(pred.flatten(2), target.flatten(1), None, None, None, None, labels),
            *('focal', [2.0, 0.25, 0.75], False, None, 0.5, output, any_backend),
        )
        torch.library.opcheck(library.loss_forward, problem)
        torch.library.opcheck(library.loss_backward, (upstream, False, *problem))


def test_twice_differentiable():
    pred, target, labels, _ = masks((2, 2, 3, 3), torch.float64)
    leaf = pred.requires_grad_()

    def loss(x):
        return functional.mask_focal_loss(x, target.double(), labels, reduction='sum')

    assert torch.autograd.gradcheck(loss, leaf)
    assert torch.autograd.gradgradcheck(loss, leaf)
    single = pred.detach().float().requires_grad_()
    (grad,) = torch.autograd.grad(functional.mask_focal_loss(single, target, labels), single, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), single)
    assert second.abs().sum() > 0


@one_graph
def test_compiles_into_one_graph(any_backend, device):
    if any_backend == 'triton':
        pytest.skip("the interpreter can't be traced; on a GPU test_opcheck stands for it")
    pred, target, labels, _ = (each.to(device) for each in masks((4, 3, 6, 5)))
    loss = FusedMaskFocalLoss()
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    leaf = pred.clone().requires_grad_()
    (want,) = torch.autograd.grad(loss(leaf, target, labels), leaf)
    (got,) = torch.autograd.grad(compiled(leaf, target, labels), leaf)
    assert torch.allclose(got, want, rtol=1e-6, atol=1e-9)
