"""What mmdet's heads hand over to their classification loss, and which head takes which loss."""

from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass

from mmdet.models.losses import GaussianFocalLoss, QualityFocalLoss
from mmdet.registry import MODELS
from torch import nn

from focal_plugin.losses import CLASSES
from focal_plugin.losses.base import FusedLoss

TARGETS = {
    'labels': 'integer labels',
    'qualities': 'labels, with a quality each where the loss is a QualityFocalLoss',
    'scored': 'the pair (labels, qualities)',
    'dense': 'values in [0, 1], one per logit',
    'flat': 'values in [0, 1] of one dimension, the logits of padding left out',
    'heat map': 'a heat map, on which only an exact 1 is a positive',
}


@dataclass(frozen=True)
class Head:
    """What a head does with its classification loss.

    Attributes:
        targets: what it hands over, one of TARGETS.
        probabilities: it hands over probabilities instead of logits.
        activation: 'sigmoid' or 'softmax' where that is all it can; 'either': it follows use_sigmoid.
        custom: it takes its channels and its activation from a loss that has custom_cls_channels.
        unreduced: what its own arithmetic needs where it asks for no reduction: a value per 'element' or per 'row'.
        quality: it takes a QualityFocalLoss.
        always: it calls its loss in every iteration, without positives too.
        note: what else to know.
        fixed: why no config exchanges the loss; empty where one does.
    """

    targets: str = 'labels'
    probabilities: bool = False
    activation: str = 'either'
    custom: bool = False
    unreduced: str = ''
    quality: bool = True
    always: bool = True
    note: str = ''
    fixed: str = ''


HEADS = {
    'AnchorHead': Head(),
    'AnchorFreeHead': Head(),
    'SABLRetinaHead': Head(),
    'SOLOHead': Head(),
    'FSAFHead': Head(unreduced='element'),
    'PAAHead': Head(unreduced='element'),
    'GFLHead': Head('scored', activation='sigmoid'),
    'RTMDetHead': Head('scored', activation='sigmoid'),
    'TOODHead': Head(
        'scored',
        probabilities=True,
        activation='sigmoid',
        note='trains the first initial_epoch (4) epochs with initial_loss_cls, a loss of its own',
    ),
    'VFNetHead': Head('dense', activation='sigmoid', note='takes loss_cls_fl instead where use_vfl=False'),
    'YOLOXHead': Head('dense', activation='sigmoid', always=False, note='hands over the positives only'),
    'YOLOV3Head': Head('dense', activation='sigmoid', note='its weight leaves only the positives'),
    'DETRHead': Head('qualities'),
    'DINOHead': Head('qualities', activation='sigmoid'),
    'DDQDETRHead': Head(
        'qualities',
        activation='sigmoid',
        note='hands qualities over in its denoising branch only; its auxiliary loss is always a QualityFocalLoss',
    ),
    'DDQAuxLoss': Head('scored', probabilities=True, activation='sigmoid'),
    'GroundingDINOHead': Head('flat', activation='sigmoid', quality=False),
    'ATSSVLFusionHead': Head('flat', activation='sigmoid'),
    'CenterNetHead': Head('heat map', probabilities=True, activation='sigmoid'),
    'CenterNetUpdateHead': Head(
        'heat map',
        probabilities=True,
        activation='sigmoid',
        note='writes num_classes into the heat maps of images without objects, which is refused on a CPU and makes the loss '
        'NaN or huge on a GPU: keep filter_empty_gt=True',
    ),
    'CornerHead': Head('heat map', probabilities=True, activation='sigmoid'),
    'BBoxHead': Head(activation='softmax', custom=True),
    'SABLHead': Head(activation='softmax'),
    'DIIHead': Head(),
    'MultiInstanceBBoxHead': Head(activation='softmax', unreduced='row'),
    'YOLACTHead': Head(activation='softmax', unreduced='row', note='the losses of masks are written in the code'),
    'MaskFormerHead': Head(
        activation='softmax',
        fixed='its classes are a softmax with a background channel, weighted by the class_weight of CrossEntropyLoss, '
        'which the head reads from the config',
    ),
    'SSDHead': Head(
        activation='softmax',
        fixed='cross-entropy with hard negative mining is written in its code; it takes no loss_cls',
    ),
    'AutoAssignHead': Head(
        fixed='the losses of positives and negatives are written in its code; loss_cls has no effect'
    ),
    'FreeAnchorRetinaHead': Head(
        fixed='its bag losses are written in the code, with gamma and alpha arguments of the head; loss_cls has no effect'
    ),
    'LinearReIDHead': Head(activation='softmax', fixed="it is a classifier of mmpretrain's, with no background"),
}
"""mmdet's heads by class name; a subclass is as the nearest of its bases that stands here."""


def head_of(kind: str | type) -> Head | None:
    """The table's entry for a class, or for a name in mmdet's registry."""
    kind = MODELS.get(kind) if isinstance(kind, str) and kind else kind
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return next((HEADS[base.__name__] for base in bases if base.__name__ in HEADS), None)


def refusals(name: str, head: Head, loss: nn.Module) -> Iterator[str]:
    """Why a loss does not fit what a head hands over, a sentence each.

    Args:
        name: how the sentences call the head.
        head: its entry.
        loss: any loss; only fused ones are looked at.
    """
    if not isinstance(loss, FusedLoss):
        return
    kind, spec = type(loss).__name__, loss.spec
    if head.fixed:
        yield f'{name} keeps its loss: {head.fixed}'
        return
    heat_map = isinstance(loss, GaussianFocalLoss)
    if head.targets == 'heat map' and not heat_map:
        yield (
            f'{name} hands over {TARGETS["heat map"]}: {kind} would take every other value for a soft target. '
            f'Use {CLASSES["gaussian_focal"].__name__}'
        )
        return
    if heat_map and head.targets != 'heat map':
        yield (
            f'{name} hands over {TARGETS[head.targets]}; {kind} is a loss of heat maps, and the third argument of its '
            f'call is no weight'
        )
        return
    yield from _activation(name, head, loss)
    if isinstance(loss, QualityFocalLoss) and not head.quality:
        yield f'{name} raises NotImplementedError for a QualityFocalLoss, and {kind} is one'
    elif head.targets == 'flat' and spec.per_row:
        yield f'{name} hands over {TARGETS["flat"]}; {kind} reduces rows, and there are none'
    if head.targets == 'scored' and not spec.scored:
        scored = ', '.join(CLASSES[name].__name__ for name in CLASSES if CLASSES[name].spec.scored)
        yield f'{name} hands over {TARGETS["scored"]}, {kind} takes no qualities. Those that do: {scored}'
    if head.targets in ('dense', 'flat') and spec.family == 'rowwise':
        yield f'{name} hands over {TARGETS[head.targets]}, {kind} takes labels only'
    if head.probabilities is not loss.takes_probabilities:
        yield _probabilities(name, head, loss)
    if spec.statistics and not head.always:
        yield (
            f'{name} does not call its loss where a batch has no positives, and {kind} sums over the processes in each '
            f'iteration: the others would wait'
        )
    if head.unreduced == 'element' and spec.per_row:
        yield f'{name} sums unreduced losses over the classes itself; those of {kind} are one per row already'
    if head.unreduced == 'row' and not spec.per_row:
        yield f'{name} picks rows by their unreduced loss; {kind} gives one per logit'


def _activation(name: str, head: Head, loss: FusedLoss) -> Iterator[str]:
    kind = type(loss).__name__
    custom = head.custom and getattr(loss, 'custom_cls_channels', False)
    if head.activation == 'softmax' and loss.use_sigmoid and not custom:
        other = ' or one with custom_cls_channels' if head.custom else ''
        yield (
            f'{name} applies a softmax over num_classes + 1 at test time, and {kind} would train the background as a '
            f'class. Keep CrossEntropyLoss there, or use a softmax loss{other}'
        )
    if head.activation == 'sigmoid' and not loss.use_sigmoid:
        yield f'{name} applies a sigmoid, one channel per class and none for the background; {kind} is a softmax loss'


def _probabilities(name: str, head: Head, loss: FusedLoss) -> str:
    kind, flag = type(loss).__name__, loss.spec.probabilities
    takes, hands = ('logits', 'probabilities') if head.probabilities else ('probabilities', 'logits')
    sentence = f'{name} hands over {hands}, {kind} takes {takes}'
    if flag is None:
        return f'{sentence} only, so that it would silently compute something else'
    return f'{sentence}: write {flag}={head.probabilities is (flag == "activated")}'
