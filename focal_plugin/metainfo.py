"""What a data set says of its classes, built or as a config: of each part, where it is made of several."""

from __future__ import annotations
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Tuple

from mmdet.datasets import MultiImageMixDataset
from mmdet.registry import DATASETS
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from torch.utils.data import ConcatDataset, Subset

TRAINING = 'the training set'
VALIDATION = 'the validation set'

_SAME_CLASSES = (RepeatDataset, ClassBalancedDataset, MultiImageMixDataset, Subset)
"""Wrappers whose classes are those of the data set within, each of its parts included."""

Found = Tuple[Tuple[int, ...], 'Mapping[str, Any]']


def of_dataset(dataset: Any, name: str = TRAINING) -> dict[str, Any]:
    """The classes of a built data set, by a name for each part that has some.

    Args:
        dataset: any data set; what says nothing of its classes has none.
        name: how the sentences call it.
    """
    return _named(_built(dataset, ()), name)


def of_config(loader: Any, name: str = TRAINING) -> dict[str, Any]:
    """The same of a data loader's config: what the config or its data set's type says.

    Args:
        loader: a config; None and what has no data set's config have no classes.
        name: how the sentences call the data set.
    """
    return _named(_configured(loader.get('dataset') if isinstance(loader, dict) else None, ()), name)


def _named(found: Iterator[Found], name: str) -> dict[str, Any]:
    return {
        f'part {".".join(map(str, path))} of {name}' if path else name: metainfo['classes']
        for path, metainfo in found
        if metainfo.get('classes') is not None
    }


def _built(dataset: Any, path: tuple[int, ...]) -> Iterator[Found]:
    metainfo = getattr(dataset, 'metainfo', None)
    if isinstance(dataset, ConcatDataset):
        # mmengine's has the metainfo of its first part, mmdet's a list where the parts differ.
        for number, part in enumerate(dataset.datasets, 1):
            yield from _built(part, (*path, number))
    elif isinstance(dataset, _SAME_CLASSES):
        yield from _built(dataset.dataset, path)
    elif isinstance(metainfo, Mapping):
        yield path, metainfo
    elif isinstance(metainfo, (list, tuple)):
        yield from (((*path, number), part) for number, part in enumerate(metainfo, 1))
    elif hasattr(dataset, 'dataset'):
        yield from _built(dataset.dataset, path)


def _configured(config: Any, path: tuple[int, ...]) -> Iterator[Found]:
    if not isinstance(config, dict):
        return
    parts = config.get('datasets')
    if isinstance(parts, (list, tuple)):
        for number, part in enumerate(parts, 1):
            yield from _configured(part, (*path, number))
    elif isinstance(config.get('dataset'), dict):
        yield from _configured(config['dataset'], path)
    else:
        kind = config.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        given = config.get('metainfo') or {}
        # mmengine's own reading also opens a file of names.
        read = getattr(kind, '_load_metainfo', None)
        yield path, read(given) if read else {**getattr(kind, 'METAINFO', {}), **given}


def refusals(classes: Mapping[str, Any]) -> Iterator[str]:
    """Classes that are no list of names, a sentence each."""
    for name, value in classes.items():
        if isinstance(value, str):
            names = tuple(part.strip() for part in value.split(','))
            yield (
                f'{name} has classes={value!r}, a string, which counts as {len(value)} classes of one letter: '
                f'write metainfo=dict(classes={names})'
            )
        elif not isinstance(value, Collection):
            yield f'{name} has classes={value!r}: write their names, metainfo=dict(classes=(...))'


def counts(classes: Mapping[str, Any]) -> dict[str, int]:
    """The number of classes of each part that lists them."""
    return {
        name: len(names)
        for name, names in classes.items()
        if isinstance(names, Collection) and not isinstance(names, str)
    }


def notes(classes: Mapping[str, Any]) -> Iterator[str]:
    """Where a label means one class in one data set, and another in the next; a sentence for each that differs."""
    listed = list(counts(classes))
    for name in listed[1:]:
        for label, (one, other) in enumerate(zip(classes[listed[0]], classes[name])):
            if one != other:
                yield f'label {label} is {one!r} in {listed[0]} and {other!r} in {name}'
                break
