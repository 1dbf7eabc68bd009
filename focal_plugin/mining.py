"""Samplers that choose rows by their classification loss, and which losses they can read."""

from __future__ import annotations
from collections.abc import Iterator
from typing import Any

from mmdet.models.task_modules.samplers import BaseSampler, OHEMSampler, ScoreHLRSampler
from mmdet.registry import TASK_UTILS
from torch import nn

from focal_plugin.check_swap import sites
from focal_plugin.losses.base import FusedLoss

MINERS = OHEMSampler, ScoreHLRSampler


def miners(model: nn.Module) -> Iterator[BaseSampler]:
    """The samplers of a built model that call a head's loss; the head is their bbox_head."""
    for module in model.modules():
        # A cascade has a list of samplers, one for each stage.
        for value in vars(module).values():
            for sampler in value if isinstance(value, list) else [value]:
                yield from (part for part in dict.fromkeys(parts(sampler)) if isinstance(part, MINERS))


def parts(sampler: Any) -> Iterator[BaseSampler]:
    """A sampler, or the two that it combines for positives and negatives; nothing where it is none."""
    if isinstance(sampler, BaseSampler):
        for part in (getattr(sampler, name, sampler) for name in ('pos_sampler', 'neg_sampler')):
            yield from [sampler] if part is sampler else parts(part)


def miners_of_config(model: Any) -> Iterator[tuple[str, type[BaseSampler]]]:
    """The same in a model's config: where each stands, and its class."""
    for path, part in sites.parts(model):
        kind = part.get('type')
        kind = TASK_UTILS.get(kind) if isinstance(kind, str) and kind.endswith('Sampler') else kind
        if isinstance(kind, type) and issubclass(kind, MINERS):
            yield path, kind


def refusals(name: str, kind: type[BaseSampler], loss: FusedLoss) -> Iterator[str]:
    """Why a sampler can't choose by a loss, if it can't.

    Args:
        name: how the sentence calls the head.
        kind: the sampler's class.
        loss: the head's.
    """
    sampler, fused = kind.__name__, type(loss).__name__
    remedy = (
        "write sampler=dict(type='RandomSampler', ...) in its train_cfg, or a softmax loss: CrossEntropyLoss or "
        'FusedSoftmaxFocalLoss'
    )
    if not loss.spec.per_row:
        yield (
            f'{name} has its rows chosen by {sampler}, by an unreduced loss of one number per row; that of {fused} has '
            f'one per logit, so that wrong rows would be taken, or the training stop with an index error: {remedy}'
        )
    elif issubclass(kind, ScoreHLRSampler) and loss.use_sigmoid:
        yield (
            f'{name} has its rows chosen by {sampler}, by a softmax over num_classes + 1; {fused} is a sigmoid loss: '
            f'{remedy}'
        )
