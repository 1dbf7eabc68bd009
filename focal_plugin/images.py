"""Rows of class logits by image, of which heads and their label assigners look at a few rows, or at a few classes."""

from __future__ import annotations
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from focal_plugin.deferred import Deferred, refuse
from focal_plugin.rows import Logits, Rows, indices

_ALL = slice(None)


class Images(Deferred):
    """Rows by image, (B, N / B, C)."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def detach(self) -> Images:
        return Images(self.rows.detach())

    def __iter__(self) -> Iterator[OfImage]:
        return (self[image] for image in range(self.rows.maps[0].size(0)))

    def __getitem__(self, image: int) -> OfImage:
        if not isinstance(image, int) or not 0 <= image < self.rows.maps[0].size(0):
            refuse(Images, f'__getitem__({image!r})')
        return OfImage(self.rows, image)

    @classmethod
    def __torch_function__(cls, function: Callable, types, args=(), kwargs=None):
        parts = _joined(function, args, kwargs, Images, dim=1)
        if parts is None:
            return super().__torch_function__(function, types, args, kwargs)
        return Images(torch.cat([each.rows for each in parts]))  # type: ignore[arg-type]  # Rows join themselves


class OfImage(Logits):
    """The rows of one image, (n, C), level by level.

    Args:
        rows: those of all images.
        image: which one.
        chosen: where they lie among the image's rows; None: they are all of them.
    """

    def __init__(self, rows: Rows, image: int, chosen: Tensor | None = None) -> None:
        self.rows, self.image, self.chosen = rows, image, chosen
        self.levels = rows.levels
        count = rows.shape[0] // rows.maps[0].size(0) if chosen is None else chosen.size(0)
        self.shape = torch.Size((count, rows.shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | tuple) -> Any:
        """What heads and assigners take.

        - [index]: the rows of a mask (n,) or of indices (m,), copied.
        - [index, :]: the same rows, remembered: those of the valid anchors, often all.
        - [:, labels]: the logits of some classes, of all rows, copied.
        """
        if not isinstance(index, tuple):
            return self.rows[self._among_all(self._places(index))]
        if len(index) == 2 and isinstance(index[0], Tensor) and index[1] == _ALL:
            return OfImage(self.rows, self.image, self._places(index[0]))
        if len(index) == 2 and isinstance(index[1], Tensor) and index[0] == _ALL and self.levels.are_held:
            return self._of_classes(index[1])
        refuse(OfImage, '__getitem__ of anything but some rows or some classes')

    def _places(self, index: Any) -> Tensor:
        """Indices among the image's rows, of a mask or of indices among these."""
        index = indices(OfImage, index, len(self))
        return index if self.chosen is None else self.chosen[index]

    def _among_all(self, index: Tensor) -> Tensor:
        """Where rows of the image lie among those of all images."""
        sizes = torch.tensor([math.prod(view.shape[1:-1]) for view in self.rows.views], device=index.device)
        ends = sizes.cumsum(0)  # of each level among the image's rows
        level = torch.searchsorted(ends, index, right=True)
        images = self.rows.maps[0].size(0)
        # Levels before this one hold all images' rows, this one those of the images before.
        return index + (ends - sizes)[level] * (images - 1) + sizes[level] * self.image

    def _of_classes(self, labels: Tensor) -> Tensor:
        picked = torch.cat([view[self.image][..., labels].flatten(0, 2) for view in self.rows.views])
        return picked if self.chosen is None else picked[self.chosen]

    @classmethod
    def __torch_function__(cls, function: Callable, types, args=(), kwargs=None):
        parts = _joined(function, args, kwargs, OfImage, dim=0)
        if parts is None or any(each.image != parts[0].image or each.chosen is not None for each in parts):
            return super().__torch_function__(function, types, args, kwargs)
        return OfImage(torch.cat([each.rows for each in parts]), parts[0].image)  # type: ignore[arg-type]


def _joined(function: Callable, args: tuple, kwargs: dict | None, kind: type, dim: int) -> Sequence[Any] | None:
    """What torch.cat joins along a dimension, if all of it is of a kind; else None."""
    given = {**dict(zip(('tensors', 'dim'), args)), **(kwargs or {})}
    if function is not torch.cat or given.pop('dim', 0) != dim or given.keys() != {'tensors'}:
        return None
    return given['tensors'] if all(isinstance(each, kind) for each in given['tensors']) else None
