"""mmdet's heads made small, what they are given, and the losses that each can take."""

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
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
QUALITY = dict(type='FusedQualityFocalLoss', use_sigmoid=True)
PROBABILITIES = dict(activated=True)


def _head(name, train, **own):
    cfg = dict(sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False, **train)
    return name, dict(train_cfg=cfg, **COMMON, **own)


def _rtmdet(name, **own):
    return _head(
        name,
        dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=13)),
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=list(STRIDES)),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=QUALITY,
        loss_bbox=GIOU,
        **own,
    )


def _tood(initial_epoch):
    """Its first losses, or with initial_epoch=0 those after them: losses_of is in epoch 0."""
    return _head(
        'TOODHead',
        dict(
            initial_epoch=initial_epoch,
            initial_assigner=ATSS['assigner'],
            assigner=dict(type='TaskAlignedAssigner', topk=13),
            alpha=1,
            beta=6,
        ),
        anchor_generator=ONE_ANCHOR,
        initial_loss_cls=FOCAL | PROBABILITIES,
        loss_cls=QUALITY | PROBABILITIES,
        loss_bbox=GIOU,
    )


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
    'rtmdet': _rtmdet('RTMDetHead', with_objectness=False),
    'rtmdet, with objectness': _rtmdet('RTMDetHead'),
    'rtmdet, norms of each level': _rtmdet('RTMDetSepBNHead', with_objectness=False),
    'rtmdet-ins': _rtmdet('RTMDetInsHead', with_objectness=False),
    'rtmdet-ins, norms of each level': _rtmdet('RTMDetInsSepBNHead', with_objectness=False),
    'tood': _tood(initial_epoch=0),
    'tood, the first epochs': _tood(initial_epoch=1),
    'ddod': _head(
        'DDODHead',
        dict(
            assigner=dict(type='ATSSAssigner', topk=9, alpha=0.8),
            reg_assigner=dict(type='ATSSAssigner', topk=9, alpha=0.5),
        ),
        anchor_generator=ONE_ANCHOR,
        use_dcn=False,
        loss_cls=FOCAL,
        loss_bbox=GIOU,
    ),
}


FIVE = ('retina', 'atss', 'fcos', 'gfl', 'vfnet')
HANDED = tuple(name for name in HEADS if name.startswith(('rtmdet', 'tood', 'ddod')))
"""Those whose label assigner is handed the class logits."""


def _pairs() -> list[tuple[str, str]]:
    """Each head with each loss that it can take: those of labels take any but the loss of heat maps."""
    kinds = [kind for name, kind in LOSSES.items() if VARIANTS[name].labelled]
    scored = [kind for kind in kinds if kind.spec.scored]
    taken = {'retina': kinds, 'atss': kinds, 'fcos': kinds, 'gfl': scored, 'vfnet': scored}
    named = [(head, kind.__name__) for head, those in taken.items() for kind in those]
    return [*named, *((head, 'FusedFocalCustomLoss') for head in ('retina', 'atss', 'fcos'))]


PAIRS = _pairs()


def _handed_pairs() -> list[tuple[str, str]]:
    """The same of heads that hand logits to an assigner."""
    labelled = [(name, kind) for name, kind in LOSSES.items() if VARIANTS[name].labelled]
    scored = [kind.__name__ for _, kind in labelled if kind.spec.scored]
    of_probabilities = [kind.__name__ for _, kind in labelled if kind.spec.scored and kind.spec.probabilities]
    return [
        *(('rtmdet', kind) for kind in scored),
        *(('tood', kind) for kind in of_probabilities),
        *(('ddod', kind.__name__) for _, kind in labelled),
    ]


HANDED_PAIRS = _handed_pairs()
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
    loss_cls = dict(type=loss, use_sigmoid=True) | given.get(loss, {}) | (PROBABILITIES if head == 'tood' else {})
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
        logits = [each.add(torch.randn_like(each)) for each in logits]
        if head.loss_cls.takes_probabilities:
            logits = [each.sigmoid() for each in logits]
        others = [[other.add(torch.randn_like(other)) for other in _levels(kind)] for kind in others]
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return [
        [each.to(to, memory_format=memory_format).requires_grad_() for each in kind]
        for kind, to in ((logits, dtype), *((other, torch.float32) for other in others))
    ]


def _levels(output) -> list[torch.Tensor]:
    """One kind of a head's outputs; RTMDet-Ins makes its masks from one map."""
    return [output] if isinstance(output, torch.Tensor) else output


BOXES = ([[8.0, 8, 40, 60], [70, 20, 150, 120]], [[30.0, 30, 90, 75]])
NO_BOXES = ([], [])


def losses_of(head, leaves: list[list[torch.Tensor]], boxes=BOXES) -> dict[str, torch.Tensor]:
    """What the head's loss_by_feat returns, flat."""
    labels = ([0, head.num_classes - 1], [head.num_classes // 2])
    annotations = [
        InstanceData(bboxes=torch.tensor(of).reshape(-1, 4), labels=torch.tensor(those[: len(of)], dtype=torch.int64))
        for of, those in zip(boxes, labels, strict=True)
    ]
    if hasattr(head, 'loss_mask'):
        for each in annotations:
            each.masks = masks_of(each.bboxes)
    metas = [dict(img_shape=(128, 160), pad_shape=(128, 160), scale_factor=(1.0, 1.0))] * 2
    MessageHub.get_current_instance().update_info('epoch', 0)  # which TOOD asks for
    given = [kind[0] if len(kind) == 1 else kind for kind in leaves]
    losses = head.loss_by_feat(*given, annotations, metas)
    return {
        f'{name} {i}': value
        for name, values in losses.items()
        for i, value in enumerate(values if isinstance(values, list) else [values])
    }


def masks_of(boxes: torch.Tensor) -> BitmapMasks:
    """Of objects that fill their boxes."""
    masks = np.zeros((len(boxes), 128, 160), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return BitmapMasks(masks, 128, 160)
