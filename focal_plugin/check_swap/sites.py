"""Where the config of a model names its classification losses."""

from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.config import ConfigDict

from focal_plugin.check_swap.pairing import head_of

KEYS = ('loss_cls', 'loss_center_heatmap', 'loss_heatmap')
"""The arguments of heads that name their classification loss."""


@dataclass(frozen=True)
class Site:
    """A place in a config that names a classification loss.

    Attributes:
        path: the dotted name of the loss.
        kind: the head's type: a name in the registry, or in mmengine's new style the class itself.
        loss: the config of the loss.
    """

    path: str
    kind: str | type
    loss: ConfigDict

    @property
    def head(self) -> str:
        """The name of the head's class."""
        return type_name(self.kind)


def parts(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict in a config, with its dotted name: a whole before its parts."""
    if isinstance(node, dict):
        yield path, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        yield from parts(value, f'{path}.{key}' if path else str(key))


def of_model(model: Any, only: str = '') -> Iterator[Site]:
    """The classification losses of a model's config, wherever they stand.

    Args:
        model: the config of a model.
        only: how the dotted names of those that are wanted begin: 'roi_head.bbox_head'.
    """
    for path, head in parts(model):
        for key, loss in head.items():
            name = f'{path}.{key}' if path else key
            if key in KEYS and isinstance(loss, dict) and 'type' in loss and name.startswith(only):
                yield Site(name, head.get('type', '?'), loss)


def fixed(model: Any) -> Iterator[str]:
    """Why heads in a model's config can't be given another loss, a sentence each, which begins with the head's name."""
    for path, part in parts(model):
        head = head_of(part.get('type', ''))
        if head is not None and head.fixed:
            yield f'{path} ({type_name(part["type"])}) keeps its loss: {head.fixed}'


def type_name(kind: str | type) -> str:
    """The name of a registry type, without its scope; configs in mmengine's new style hold the class itself."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', repr(kind))
