"""Checks at the start of training: what a renamed loss leaves silently wrong."""

from collections.abc import Iterator

from mmdet.models.task_modules.samplers import PseudoSampler, RandomSampler
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from focal_plugin.losses.base import FusedLoss


@HOOKS.register_module()
class FusedLossCheckHook(Hook):
    """Stops training with a sentence that says what to write, where a head and its fused loss don't fit together.

    It compares, for every head whose classification loss is fused: use_sigmoid of head and loss, the number of channels
    with num_classes, num_classes with the classes of the training set, and the sampler.

    Raises:
        ValueError: at the start of training, with all that was found.
    """

    def before_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        classes = runner.train_dataloader.dataset.metainfo.get('classes')
        found = list(findings(model, None if classes is None else len(classes)))
        if found:
            raise ValueError('FusedLossCheckHook:\n' + '\n'.join(f'- {sentence}' for sentence in found))


def findings(model: nn.Module, dataset_classes: int | None = None) -> Iterator[str]:
    """What is wrong, a sentence each.

    Args:
        model: a detector.
        dataset_classes: the number of classes of the training set, if known.
    """
    for path, head in model.named_modules():
        loss = getattr(head, 'loss_cls', None)
        if isinstance(loss, FusedLoss):
            yield from _of_head(f'{path} ({type(head).__name__})', head, loss, dataset_classes)


def _of_head(name: str, head: nn.Module, loss: FusedLoss, dataset_classes: int | None) -> Iterator[str]:
    kind = type(loss).__name__
    num_classes = getattr(head, 'num_classes', None)
    channels = getattr(head, 'cls_out_channels', num_classes)
    if getattr(head, 'use_sigmoid_cls', True) is not loss.use_sigmoid:
        yield (
            f'{name} was built for a softmax of {channels} channels, but its loss {kind} is a sigmoid loss: heads read '
            f"use_sigmoid from the config, so write loss_cls=dict(type='{kind}', use_sigmoid=True, ...)"
        )
    elif channels != num_classes:
        yield (
            f'{name} has {channels} class channels for num_classes={num_classes}: a sigmoid loss takes one channel a class '
            f"and none for the background, so write loss_cls=dict(type='{kind}', use_sigmoid=True, ...)"
        )
    if hasattr(head, 'fc_cls') and not getattr(loss, 'custom_cls_channels', False):
        yield (
            f'{name} is a box head with a softmax over num_classes + 1 at test time: {kind} would train the background as a '
            f'class. Keep CrossEntropyLoss there, or use a loss with custom_cls_channels'
        )
    if dataset_classes is not None and num_classes is not None and num_classes != dataset_classes:
        yield (
            f'{name} has num_classes={num_classes}, the training set {dataset_classes} classes: write '
            f'num_classes={dataset_classes}, or metainfo=dict(classes=...) of {num_classes} names in the data set'
        )
    sampler = getattr(head, 'sampler', None)
    if isinstance(sampler, RandomSampler) and not isinstance(sampler, PseudoSampler):
        yield (
            f'{name} samples its anchors with {type(sampler).__name__}: a focal loss wants all of them, divided by the '
            f"positives, so write train_cfg=dict(sampler=dict(type='PseudoSampler'))"
        )
