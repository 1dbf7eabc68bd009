"""Arguments that a config inherits from the loss before: which are let through with a warning, what to write instead."""

from __future__ import annotations
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from focal_plugin.losses import class_weight
from focal_plugin.math import SPECS
from focal_plugin.parameters import unknown

if TYPE_CHECKING:
    from focal_plugin.losses.base import FusedLoss


def check(kind: type[FusedLoss], given: Mapping[str, Any], own: Iterable[str]) -> None:
    """Refuses what no loss here knows, a slip or an argument of another library's loss; warns of what only others know.

    Args:
        kind: the class of the loss.
        given: the arguments that it does not have.
        own: those that it has.
    """
    # What some class here takes a config may inherit; anything else is a slip.
    anyones = {'num_classes', 'ignore_index', 'class_weight', *(spec.probabilities for spec in SPECS.values())}
    anyones.update(*(spec.defaults for spec in SPECS.values()))
    for name in given:
        if name not in anyones - {*kind.withheld}:
            message = unknown(kind.__name__, name, own, _remedy(kind, name))
            raise TypeError(f'{message} (_delete_=True leaves out what a config inherits)')
    if given:
        names = ', '.join(f'{name}={value!r}' for name, value in given.items())
        remedies = ''.join(f'. For {name}: {remedy}' for name in given if (remedy := _remedy(kind, name)))
        warnings.warn(
            f'{kind.__name__} does not use {names}: other losses do, and a config that only changes the type inherits them. '
            f'They have no effect; _delete_=True (with use_sigmoid written out) leaves them out{remedies}',
            stacklevel=3,
        )


def _remedy(kind: type[FusedLoss], name: str) -> str:
    """What to write instead of an argument of mmdet's other losses; empty where nothing stands for it."""
    rows = kind.spec.family == 'rowwise'
    if name == 'pos_weight':
        if any(map(class_weight.weights_positives, kind.spec.parameters)):
            return 'write alpha, the weight of the positives beside 1 - alpha of the negatives'
        return 'write class_weight, a factor of the rows of each class' * kind.labelled
    if name == 'bg_cls_weight':
        where = "as its channel's number" if rows else 'as the last of C + 1 numbers'
        return f"write the background's weight {where} in class_weight" * kind.labelled
    if name in ('label_smoothing', 'label_smooth_val'):
        return 'hand over smoothed values as a dense target of the shape of pred' * (not rows)
    if name in ('class_weight', 'ignore_index'):
        return 'this loss picks no rows by their labels, so write zeros or factors into weight'
    return {
        'use_mask': 'the focal loss of masks is FusedMaskFocalLoss',
        'avg_non_ignore': 'the mean counts ignored rows too, so hand over avg_factor',
        'eps': 'no logarithm or quotient here needs one, so leave it out',
    }.get(name, '')
