"""Heads that never copy their logits against mmdet's stock heads with the same loss."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from test_memory import allocated

import focal_plugin
from focal_plugin.losses import FusedFocalLoss, FusedPolyFocalLoss, FusedQualityFocalLoss
from focal_plugin.rows import Map, Rows

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
    'fcos': ('FCOSHead', dict(**COMMON, strides=STRIDES, regress_ranges=RANGES, loss_cls=FOCAL)),
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
}


def built(name: str, arguments: dict):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(type=name, **arguments))


def outputs(head, channels_last: bool) -> list[list[torch.Tensor]]:
    """What the head's forward returns for random features, as leaves."""
    torch.manual_seed(1)
    features = [torch.randn(2, 32, *size) for size in SIZES]
    with torch.no_grad():
        levels = head(features)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return [
        [each.add(torch.randn_like(each)).to(memory_format=memory_format).requires_grad_() for each in kind]
        for kind in levels
    ]


def annotations() -> list[InstanceData]:
    boxes = ([[8.0, 8, 40, 60], [70, 20, 150, 120]], [[30.0, 30, 90, 75]])
    labels = ([0, CLASSES - 1], [3])
    return [InstanceData(bboxes=torch.tensor(b), labels=torch.tensor(c)) for b, c in zip(boxes, labels, strict=True)]


def losses_and_gradients(head, channels_last: bool = False):
    leaves = outputs(head, channels_last)
    metas = [dict(img_shape=(128, 160), pad_shape=(128, 160), scale_factor=(1.0, 1.0))] * 2
    losses = head.loss_by_feat(*leaves, annotations(), metas)
    flat = {
        f'{name} {i}': value
        for name, values in losses.items()
        for i, value in enumerate(values if isinstance(values, list) else [values])
    }
    sum(flat.values()).sum().backward()
    return flat, [leaf.grad for kind in leaves for leaf in kind], leaves


@pytest.mark.parametrize(('name', 'arguments'), HEADS.values(), ids=HEADS)
@pytest.mark.parametrize('channels_last', (False, True), ids=('NCHW', 'channels last'))
def test_same_losses_and_gradients_as_the_stock_head(name, arguments, channels_last):
    stock, fused = built(name, arguments), built(f'Fused{name}', arguments)
    assert {k: v.shape for k, v in stock.state_dict().items()} == {k: v.shape for k, v in fused.state_dict().items()}
    want, want_grads, _ = losses_and_gradients(stock, channels_last)
    got, got_grads, got_leaves = losses_and_gradients(fused, channels_last)
    assert got.keys() == want.keys()
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=2e-6, atol=1e-8)
    assert any(grad is not None and grad.abs().max() > 0 for grad in want_grads)
    for a, b in zip(got_grads, want_grads, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8 * float(b.abs().max()) + 1e-12)
    for leaf in got_leaves[0]:
        assert leaf.grad.stride() == leaf.stride()


@pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')
def test_nothing_of_the_logits_size_but_the_gradient_is_allocated():
    logits = [torch.randn(2, 9 * 80, *size).requires_grad_() for size in ((32, 32), (16, 16), (8, 8))]
    elements = sum(each.numel() for each in logits)
    rows = elements // 80
    targets, weights, loss = torch.randint(0, 81, (rows,)), torch.rand(rows), FusedFocalLoss()

    def step():
        pred = Rows(logits, 80)
        torch.autograd.grad(loss(pred, targets, weights, avg_factor=100.0), logits)

    step()
    assert 4 * elements <= allocated(step) <= 1.02 * 4 * elements


@pytest.mark.parametrize('reduction', ('none', 'mean', 'sum'))
@pytest.mark.parametrize('weight', ('none', 'row', 'column', 'element', 'flat', 'class'))
@pytest.mark.parametrize('kind', (FusedPolyFocalLoss, FusedQualityFocalLoss))
def test_rows_are_the_tensor_that_they_stand_for(reduction, weight, kind):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3 * CLASSES, *size, generator=generator) for size in SIZES]
    rows = Rows(maps, CLASSES)
    plain = torch.cat([each.permute(0, 2, 3, 1).reshape(-1, CLASSES) for each in maps])
    n = len(plain)
    assert torch.equal(rows.tensor(), plain)
    assert rows.shape == plain.shape
    weights = {
        'none': None,
        'row': torch.rand(n),
        'column': torch.rand(n, 1),
        'element': torch.rand(n, CLASSES),
        'flat': torch.rand(n * CLASSES),
        'class': torch.rand(1, CLASSES),
    }
    target = torch.randint(0, CLASSES + 1, (n,), generator=generator)
    if kind is FusedQualityFocalLoss:
        target = (target, torch.rand(n, generator=generator))
    loss = kind(reduction=reduction)
    got, want = loss(rows, target, weights[weight]), loss(plain, target, weights[weight])
    torch.testing.assert_close(got, want, rtol=5e-6, atol=1e-9)


def test_dense_targets_and_a_tensor_as_divisor():
    maps = [torch.randn(2, CLASSES, *size) for size in SIZES]
    rows, plain = Rows(maps, CLASSES), torch.cat([m.permute(0, 2, 3, 1).reshape(-1, CLASSES) for m in maps])
    dense, loss = torch.rand_like(plain), FusedFocalLoss()
    divisor = torch.tensor([3.0])
    got = loss(rows, dense, avg_factor=divisor)
    assert got.shape == (1,)
    torch.testing.assert_close(got, loss(plain, dense, avg_factor=divisor), rtol=5e-6, atol=0)


def test_what_else_is_asked_of_the_maps_is_answered_by_tensors():
    """A head of another make may do anything with its logits."""
    logits = torch.randn(2, 6, 4, 5)
    lazy = Map(logits)
    permuted = logits.permute(0, 2, 3, 1)
    assert lazy.size(0) == 2 and lazy.shape == logits.shape and lazy.dtype == logits.dtype
    assert torch.equal(lazy.sigmoid(), logits.sigmoid())
    assert torch.equal(torch.sigmoid(lazy), logits.sigmoid())
    assert torch.equal(lazy.permute(1, 0, 2, 3), logits.permute(1, 0, 2, 3))
    assert torch.equal(lazy.permute(0, 2, 3, 1).reshape(2, -1, 3), permuted.reshape(2, -1, 3))
    assert torch.equal(lazy.permute(0, 2, 3, 1).contiguous(), permuted)
    rows = lazy.permute(0, 2, 3, 1).reshape(-1, 3)
    assert isinstance(rows, Rows)
    plain = permuted.reshape(-1, 3)
    assert torch.equal(rows.detach().sigmoid().max(dim=1)[0], plain.sigmoid().max(dim=1)[0])
    assert torch.equal(torch.cat([rows, rows]).tensor(), torch.cat([plain, plain]))
    assert torch.equal(torch.cat([rows, plain]), torch.cat([plain, plain]))
    assert torch.zeros_like(rows).shape == plain.shape
    assert torch.equal(torch.nn.functional.softplus(rows), torch.nn.functional.softplus(plain))


def test_targets_of_another_number_of_rows():
    rows = Rows([torch.randn(1, 6, 2, 2)], 3)
    with pytest.raises(ValueError, match=r'8 rows of logits, but a target or weight of shape \(7,\)'):
        FusedFocalLoss()(rows, torch.zeros(7, dtype=torch.int64))


def test_another_loss_is_refused():
    name, arguments = HEADS['retina']
    with pytest.raises(TypeError, match=r'got FocalLoss: write loss_cls.*or go back to RetinaHead'):
        built(f'Fused{name}', arguments | dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)))
