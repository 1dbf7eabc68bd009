"""Heads that never copy their logits against mmdet's stock heads with the same loss."""

import pytest
import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from focal_plugin.heads.zero_copy import ZeroCopyMixin
from focal_plugin.losses import CLASSES as LOSSES

CLASSES = 7
SIZES = ((16, 20), (8, 10), (4, 5))
STRIDES = (8, 16, 32)
ANCHORS = dict(
    type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=list(STRIDES)
)
ONE_ANCHOR = dict(
    type='AnchorGenerator',
    ratios=[1.0],
    octave_base_scale=8,
    scales_per_octave=1,
    center_offset=0.0,
    strides=list(STRIDES),
)
MAX_IOU = dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0))
ATSS = dict(assigner=dict(type='ATSSAssigner', topk=9))
COMMON = dict(num_classes=CLASSES, in_channels=32, feat_channels=32, stacked_convs=1)
RANGES = ((-1, 32), (32, 64), (64, 1e8))
GIOU = dict(type='GIoULoss', loss_weight=2.0)
FOCAL = dict(type='FusedFocalLoss', use_sigmoid=True)


def _head(name, train, **own):
    cfg = dict(sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False, **train)
    return name, dict(train_cfg=cfg, **COMMON, **own)


# stock head, its arguments; with the losses that its fused twin has to reproduce
HEADS = {
    'retina': _head('RetinaHead', MAX_IOU, anchor_generator=ANCHORS, loss_cls=FOCAL),
    'retina, a mean without reduction by images': _head(
        'RetinaHead', MAX_IOU, anchor_generator=ANCHORS, loss_cls=dict(type='FusedPolyFocalLoss', use_sigmoid=True)
    ),
    'retina, vectors of classes': _head(
        'RetinaHead', MAX_IOU, anchor_generator=ANCHORS, loss_cls=FOCAL | dict(alpha=[0.1 * c for c in range(CLASSES)])
    ),
    'retina, with statistics': _head(
        'RetinaHead',
        MAX_IOU,
        anchor_generator=ANCHORS,
        loss_cls=dict(type='FusedEqualizedFocalLoss', use_sigmoid=True, num_classes=CLASSES),
    ),
    'atss': _head('ATSSHead', ATSS, anchor_generator=ONE_ANCHOR, loss_cls=FOCAL, loss_bbox=GIOU),
    'atss, nine anchors a location': _head('ATSSHead', ATSS, anchor_generator=ANCHORS, loss_cls=FOCAL, loss_bbox=GIOU),
    'fcos': ('FCOSHead', dict(**COMMON, strides=STRIDES, regress_ranges=RANGES, loss_cls=FOCAL)),
    'fcos, one class': (
        'FCOSHead',
        COMMON | dict(num_classes=1, strides=STRIDES, regress_ranges=RANGES, loss_cls=FOCAL),
    ),
    'gfl': _head(
        'GFLHead',
        ATSS,
        anchor_generator=ONE_ANCHOR,
        loss_cls=dict(type='FusedQualityFocalLoss', use_sigmoid=True),
        loss_bbox=GIOU,
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
    ),
    'vfnet': _head(
        'VFNetHead',
        ATSS,
        anchor_generator=ONE_ANCHOR,
        regress_ranges=RANGES,
        strides=list(STRIDES),
        loss_cls=dict(type='FusedVarifocalLoss', use_sigmoid=True, alpha=0.75, gamma=2.0),
    ),
    'vfnet, labels': _head(
        'VFNetHead',
        ATSS,
        anchor_generator=ONE_ANCHOR,
        regress_ranges=RANGES,
        strides=list(STRIDES),
        use_vfl=False,
        loss_cls_fl=FOCAL,
    ),
}
FIVE = ('retina', 'atss', 'fcos', 'gfl', 'vfnet')


def _pairs() -> list[tuple[str, str]]:
    """Each head with each loss that it can take: those of labels take any but the loss of heat maps."""
    kinds = [kind for kind in LOSSES.values() if kind.spec.name != 'gaussian_focal']
    scored = [kind for kind in kinds if kind.spec.scored]
    taken = {'retina': kinds, 'atss': kinds, 'fcos': kinds, 'gfl': scored, 'vfnet': scored}
    named = [(head, kind.__name__) for head, those in taken.items() for kind in those]
    return [*named, *((head, 'FusedFocalCustomLoss') for head in ('retina', 'atss', 'fcos'))]


PAIRS = _pairs()
DENSE = (
    'FusedFocalLoss',
    'FusedFocalCustomLoss',
    'FusedPolyFocalLoss',
    'FusedAsymmetricLoss',
    'FusedEqualizedFocalLoss',
)


def with_loss(head: str, loss: str, classes: int = CLASSES) -> tuple[str, dict]:
    """A head's name and arguments with another loss."""
    name, arguments = HEADS[head]
    own = {
        'FusedEqualizedFocalLoss': dict(num_classes=classes),
        'FusedFocalCustomLoss': dict(num_classes=classes),
        'FusedClassBalancedFocalLoss': dict(samples_per_class=list(range(1, classes + 1))),
        'FusedSoftmaxFocalLoss': dict(use_sigmoid=False),
    }
    if loss == 'FusedSoftmaxFocalLoss':
        classes -= 1  # it has a channel for the background
    loss_cls = dict(type=loss, use_sigmoid=True) | own.get(loss, {})
    return name, arguments | dict(num_classes=classes, loss_cls=loss_cls)


def built(name: str, arguments: dict):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(type=name, **arguments))


def outputs(head, channels_last: bool, dtype: torch.dtype = torch.float32) -> list[list[torch.Tensor]]:
    """What the head's forward returns for random features, as leaves, its class logits in this dtype."""
    torch.manual_seed(1)
    features = [torch.randn(2, 32, *size) for size in SIZES]
    with torch.no_grad():
        logits, *others = head(features)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return [
        [each.add(torch.randn_like(each)).to(to, memory_format=memory_format).requires_grad_() for each in kind]
        for kind, to in ((logits, dtype), *((other, torch.float32) for other in others))
    ]


BOXES = ([[8.0, 8, 40, 60], [70, 20, 150, 120]], [[30.0, 30, 90, 75]])
NO_BOXES = ([], [])


def losses_of(head, leaves: list[list[torch.Tensor]], boxes=BOXES) -> dict[str, torch.Tensor]:
    """What the head's loss_by_feat returns, flat."""
    labels = ([0, head.num_classes - 1], [head.num_classes // 2])
    annotations = [
        InstanceData(bboxes=torch.tensor(of).reshape(-1, 4), labels=torch.tensor(those[: len(of)], dtype=torch.int64))
        for of, those in zip(boxes, labels, strict=True)
    ]
    metas = [dict(img_shape=(128, 160), pad_shape=(128, 160), scale_factor=(1.0, 1.0))] * 2
    losses = head.loss_by_feat(*leaves, annotations, metas)
    return {
        f'{name} {i}': value
        for name, values in losses.items()
        for i, value in enumerate(values if isinstance(values, list) else [values])
    }


def losses_and_gradients(head, leaves: list[list[torch.Tensor]], boxes=BOXES):
    losses = losses_of(head, leaves, boxes)
    sum(losses.values()).sum().backward()
    return losses, [leaf.grad for kind in leaves for leaf in kind]


def compare(name: str, arguments: dict, channels_last: bool = False, boxes=BOXES) -> None:
    """The head's losses and gradients are those of the stock head with the same loss."""
    stock, fused = built(name, arguments), built(f'Fused{name}', arguments)
    assert {k: v.shape for k, v in stock.state_dict().items()} == {k: v.shape for k, v in fused.state_dict().items()}
    want, want_grads = losses_and_gradients(stock, outputs(stock, channels_last), boxes)
    leaves = outputs(fused, channels_last)
    got, got_grads = losses_and_gradients(fused, leaves, boxes)
    assert got.keys() == want.keys()
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=2e-6, atol=1e-8)
    assert any(grad is not None and grad.abs().max() > 0 for grad in want_grads)
    for a, b in zip(got_grads, want_grads, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8 * float(b.abs().max()) + 1e-12)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert all(leaf.grad.is_contiguous(memory_format=memory_format) for leaf in leaves[0])


@pytest.mark.parametrize(('name', 'arguments'), HEADS.values(), ids=HEADS)
@pytest.mark.parametrize('channels_last', (False, True), ids=('NCHW', 'channels last'))
def test_same_losses_and_gradients_as_the_stock_head(name, arguments, channels_last):
    compare(name, arguments, channels_last)


@pytest.mark.parametrize(('name', 'arguments'), HEADS.values(), ids=HEADS)
def test_images_without_objects(name, arguments):
    compare(name, arguments, boxes=NO_BOXES)


@pytest.mark.parametrize(('head', 'loss'), [*PAIRS, *(('vfnet', loss) for loss in DENSE)])
def test_every_loss_that_a_head_can_take(head, loss):
    compare(*with_loss(head, loss))


@pytest.mark.parametrize('head', FIVE)
@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
def test_half_precision_logits(head, dtype):
    name, arguments = HEADS[head]
    stock, fused = built(name, arguments), built(f'Fused{name}', arguments)
    leaves = outputs(fused, False, dtype)
    # The stock VFNetHead fails at them: it sets float32 qualities into targets of the logits' dtype.
    to = torch.float32 if head == 'vfnet' else dtype
    reference = [
        [leaf.detach().to(to if kind is leaves[0] else leaf.dtype).requires_grad_() for leaf in kind] for kind in leaves
    ]
    want, _ = losses_and_gradients(stock, reference)
    got, _ = losses_and_gradients(fused, leaves)
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=2e-6, atol=1e-8)
    limits = torch.finfo(dtype)
    for a, b in zip(leaves[0], reference[0], strict=True):
        assert a.grad.dtype is dtype
        torch.testing.assert_close(a.grad.float(), b.grad.float(), rtol=limits.eps, atol=limits.smallest_normal)


REFUSED = {
    'another loss': ('retina', dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)), 'FocalLoss', 'FusedFocalLoss'),
    'another loss of quality': (
        'gfl',
        dict(loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True)),
        'QualityFocalLoss',
        'FusedQualityFocalLoss',
    ),
    'another varifocal loss': (
        'vfnet',
        dict(loss_cls=dict(type='VarifocalLoss', use_sigmoid=True)),
        'VarifocalLoss',
        'FusedVarifocalLoss',
    ),
    'one that no loss here replaces': (
        'atss',
        dict(loss_cls=dict(type='GHMC', use_sigmoid=True)),
        'GHMC',
        'FusedFocalLoss',
    ),
    'a loss of masks': (
        'fcos',
        dict(loss_cls=dict(type='FusedMaskFocalLoss', use_sigmoid=True)),
        'FusedMaskFocalLoss',
        'FusedFocalLoss',
    ),
}


@pytest.mark.parametrize(('head', 'given', 'loss', 'instead'), REFUSED.values(), ids=REFUSED)
def test_a_loss_that_needs_the_copies_is_refused(head, given, loss, instead):
    name, arguments = HEADS[head]
    with pytest.raises(TypeError, match=rf"got {loss}: write loss_cls=dict\(type='{instead}'.*or go back to {name}$"):
        built(f'Fused{name}', arguments | given)


def test_the_refusal_names_the_argument_that_the_head_reads():
    name, arguments = HEADS['vfnet, labels']
    with pytest.raises(TypeError, match=r"got FocalLoss: write loss_cls_fl=dict\(type='FusedFocalLoss'"):
        built(f'Fused{name}', arguments | dict(loss_cls_fl=dict(type='FocalLoss', use_sigmoid=True)))


@pytest.mark.parametrize('head', FIVE)
def test_a_number_for_each_logit_is_refused(head):
    name, arguments = HEADS[head]
    loss = arguments['loss_cls'] | dict(reduction='none')
    with pytest.raises(ValueError, match=rf"reduction='none' would: write loss_cls=.*or go back to {name}$"):
        built(f'Fused{name}', arguments | dict(loss_cls=loss))


def test_a_head_of_another_make_that_would_copy_its_logits_is_told_so():
    class Cautious(ZeroCopyMixin, RetinaHead):
        def loss_by_feat_single(self, cls_score, *args, **kwargs):
            return super().loss_by_feat_single(cls_score.clamp(-10, 10), *args, **kwargs)

    init_default_scope('mmdet')
    head = Cautious(**ConfigDict(HEADS['retina'][1]))
    with pytest.raises(AttributeError, match=r'^clamp is not known .* Go back to the stock head'):
        losses_of(head, outputs(head, False))
