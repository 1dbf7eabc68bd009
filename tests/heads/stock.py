"""mmdet's heads made small, what they are given, and the losses that each can take."""

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from focal_plugin.losses import CLASSES as LOSSES
from tests.variants import VARIANTS

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
    kinds = [kind for name, kind in LOSSES.items() if VARIANTS[name].labelled]
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
    given = {variant.kind: variant.required_by_class(classes) for variant in VARIANTS.values()}
    given |= {'FusedFocalCustomLoss': dict(num_classes=classes), 'FusedSoftmaxFocalLoss': dict(use_sigmoid=False)}
    if loss == 'FusedSoftmaxFocalLoss':
        classes -= 1  # it has a channel for the background
    loss_cls = dict(type=loss, use_sigmoid=True) | given.get(loss, {})
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
