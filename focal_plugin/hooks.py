"""Checks at the start of training: what a renamed loss leaves silently wrong."""

from __future__ import annotations
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmdet.models.detectors import RPN, TwoStagePanopticSegmentor
from mmdet.models.task_modules.assigners import ClassificationCost, FocalLossCost
from mmdet.models.task_modules.samplers import PseudoSampler, RandomSampler
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from focal_plugin import metainfo, mining
from focal_plugin.check_swap import pairing, sites
from focal_plugin.losses.base import FusedLoss
from focal_plugin.math.spec import REQUIRED


@HOOKS.register_module()
class FusedLossCheckHook(Hook):
    """Stops training with a sentence that says what to write, where a head and its fused loss don't fit together.

    It compares, for every head whose classification loss is fused: use_sigmoid of head and loss, the number of channels
    with num_classes, num_classes with the classes of the training set and of each of its parts, the sampler, the costs of
    matching, and what the head hands over with what the loss takes (focal_plugin.check_swap.pairing), in TOOD's first
    epochs too. It logs what is right but may surprise: arguments that differ from the loss's defaults, or that it does
    not use, and labels that mean other classes in another part or in the validation set.

    Raises:
        ValueError: at the start of training, with all that was found.
    """

    def before_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        classes = metainfo.of_dataset(getattr(runner.train_dataloader, 'dataset', None))
        found = [*metainfo.refusals(classes), *findings(model, metainfo.counts(classes))]
        if found:
            raise ValueError('FusedLossCheckHook:\n' + '\n'.join(f'- {sentence}' for sentence in found))
        validation = getattr(getattr(runner, 'val_loop', None), 'dataloader', None)
        classes.update(metainfo.of_dataset(getattr(validation, 'dataset', None), metainfo.VALIDATION))
        for sentence in [*notes(model), *metainfo.notes(classes)]:
            print_log(f'FusedLossCheckHook: {sentence}', logger='current')


def findings(model: nn.Module, dataset_classes: int | Mapping[str, int] | None = None) -> Iterator[str]:
    """What is wrong, a sentence each.

    Args:
        model: a detector.
        dataset_classes: the number of classes of the training set, or that of each of its parts by name, if known.
    """
    counts = {metainfo.TRAINING: dataset_classes} if isinstance(dataset_classes, int) else dataset_classes or {}
    samplers = list(mining.miners(model))
    for name, head, loss in heads(model):
        yield from _of_head(name, head, loss)
        if _has_all_classes(model, name):
            yield from _classes(name, head, counts)
        for kind in dict.fromkeys(type(sampler) for sampler in samplers if sampler.bbox_head is head):
            yield from mining.refusals(name, kind, loss)
    for name, head, loss in heads(model, ('initial_loss_cls',)):
        entry = pairing.head_of(type(head))
        if entry is not None:
            yield from pairing.refusals(f'{name} in its first epochs', replace(entry, targets='labels'), loss)


def notes(model: nn.Module) -> Iterator[str]:
    """What is right but may surprise, a sentence each; equal ones of several heads are one."""
    found: dict[str, list[str]] = {}
    for name, head, loss in heads(model):
        for sentence in _notes(head, loss):
            found.setdefault(sentence, []).append(name)
    for sentence, names in found.items():
        yield f'{", ".join(names)}: {sentence}'


def heads(model: nn.Module, keys: Sequence[str] = sites.KEYS) -> Iterator[tuple[str, nn.Module, FusedLoss]]:
    """Each head with a fused classification loss: its name for a sentence, itself, the loss."""
    for path, head in model.named_modules():
        for key in keys:
            loss = getattr(head, key, None)
            if isinstance(loss, FusedLoss):
                yield f'{path} ({type(head).__name__})' if path else type(head).__name__, head, loss


def _of_head(name: str, head: nn.Module, loss: FusedLoss) -> Iterator[str]:
    entry = pairing.head_of(type(head))
    if entry is not None:
        yield from pairing.refusals(name, entry, loss)
    # Box heads have channels of their own.
    if entry is None or entry.activation != 'softmax':
        yield from _channels(name, head, loss)
    for kind in dict.fromkeys(type(part) for part in mining.parts(getattr(head, 'sampler', None))):
        if issubclass(kind, RandomSampler) and not issubclass(kind, PseudoSampler):
            yield (
                f'{name} samples its anchors with {kind.__name__}: a focal loss wants all of them, divided by the '
                f"positives, so write train_cfg=dict(sampler=dict(type='PseudoSampler'))"
            )
    wrong, right = (ClassificationCost, FocalLossCost) if loss.use_sigmoid else (FocalLossCost, ClassificationCost)
    for cost in getattr(getattr(head, 'assigner', None), 'match_costs', ()):
        if isinstance(cost, wrong):
            yield (
                f'{name} matches by a {"softmax" if loss.use_sigmoid else "sigmoid"} ({type(cost).__name__}), its loss '
                f'{type(loss).__name__} is none: write {right.__name__} in match_costs'
            )


def _has_all_classes(model: nn.Module, name: str) -> bool:
    """Whether a head's classes are the data set's: an RPN's, which mmdet calls a bbox_head too, tells objects from the
    background, and the boxes of Panoptic FPN are those of things alone.
    """
    return not isinstance(model, (RPN, TwoStagePanopticSegmentor)) and 'rpn_head' not in name


def _classes(name: str, head: nn.Module, counts: Mapping[str, int]) -> Iterator[str]:
    """Whether the head has as many classes as the training set, and each of its parts."""
    num_classes = getattr(head, 'num_classes', None)
    entry = pairing.head_of(type(head))
    # mmdet3d's CenterHead has a list of tasks; the channels of a head that reads a text are the text's tokens.
    if not isinstance(num_classes, int) or (entry is not None and entry.targets == 'flat'):
        return
    numbers = set(counts.values())
    if len(numbers) == 1 and num_classes not in numbers:
        (number,) = numbers
        yield (
            f'{name} has num_classes={num_classes}, {metainfo.TRAINING} {number} classes: write '
            f'num_classes={number}, or metainfo=dict(classes=...) of {num_classes} names in the data set'
        )
    elif len(numbers) > 1:
        parts = ', '.join(f'{part} {number} classes' for part, number in counts.items())
        yield (
            f'{name} has num_classes={num_classes}, {parts}: a label counts in one list of names, so write the same '
            f'metainfo=dict(classes=...), of num_classes names, in every part'
        )


def _channels(name: str, head: nn.Module, loss: FusedLoss) -> Iterator[str]:
    kind = type(loss).__name__
    num_classes: Any = getattr(head, 'num_classes', None)
    channels = getattr(head, 'cls_out_channels', num_classes)
    right = f"loss_cls=dict(type='{kind}', use_sigmoid={loss.use_sigmoid}, ...)"
    if getattr(head, 'use_sigmoid_cls', loss.use_sigmoid) is not loss.use_sigmoid:
        built, is_a = ('softmax', 'sigmoid') if loss.use_sigmoid else ('sigmoid', 'softmax')
        yield (
            f'{name} was built for a {built} of {channels} channels, but its loss {kind} is a {is_a} loss: heads read '
            f'use_sigmoid from the config, so write {right}'
        )
    elif loss.use_sigmoid and isinstance(num_classes, int) and channels != num_classes:
        if channels == num_classes * getattr(head, 'num_anchors', 1):  # mmdet3d counts those of all anchors
            return
        yield (
            f'{name} has {channels} class channels for num_classes={num_classes}: a sigmoid loss takes one channel per '
            f'class and none for the background, so write {right}'
        )


def _notes(head: nn.Module, loss: FusedLoss) -> Iterator[str]:
    kind = type(loss).__name__
    entry = pairing.head_of(type(head))
    differing = {
        name: value for name, value in loss.given_arguments.items() if _differs(value, loss.spec.defaults[name])
    }
    if differing:
        given = ', '.join(f'{name}={value} (default {loss.spec.defaults[name]})' for name, value in differing.items())
        yield f'{kind} has {given}; a config that only changes the type inherits such values from the loss before'
    if loss.ignored_arguments:
        yield f'{kind} does not use {", ".join(f"{name}={value}" for name, value in loss.ignored_arguments.items())}'
    if entry is None:
        return
    if entry.targets == 'labels' and loss.spec.scored:
        yield f'{kind} is a loss of qualities, and the head hands over labels alone: each positive has quality 1'
    if entry.note:
        yield f'the head {entry.note}'


def _differs(value, default) -> bool:
    if isinstance(value, Tensor):
        value = value.tolist()
    return default is not REQUIRED and value != default
