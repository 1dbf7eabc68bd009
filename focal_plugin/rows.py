"""Class logits of feature maps as rows of classes that are never copied.

A fused loss reads them where they lie. They know what mmdet's heads ask of their rows and nothing else: what nobody
thought of could only be answered by the copy that the heads promise not to make, so it is an error.
"""

from __future__ import annotations
import functools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from focal_plugin.compatibility import unravel_index
from focal_plugin.deferred import Deferred, refuse
from focal_plugin.kernels.problem import Problem
from focal_plugin.ops import autograd


class Levels:
    """The class logits of some levels of a head, each (B, A * C, H, W).

    Attributes:
        maps: the logits.
        are_held: they lie in memory.
        block: as many rows of theirs as may be copied at once, or None: any number.
    """

    are_held: bool = True
    block: int | None = None

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps

    @property
    def requires_grad(self) -> bool:
        return any(level.requires_grad for level in self.maps)

    def __add__(self, others: Levels) -> Levels:
        return Levels([*self.maps, *others.maps])

    def detach(self) -> Levels:
        return Levels([level.detach() for level in self.maps])

    def picked(self, level: int, view: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        """The rows of a level, (M, C), that lie at these places of its view (B, H, W, A, C)."""
        return view[places]

    def total(self, problems: list[Problem], statistics: Tensor | None) -> Any:
        """The sum of the problems, one of each level."""
        return autograd.total_of(problems, statistics)


class Logits(Deferred):
    """Logits whose metadata is a tensor's: asking for it copies nothing."""

    levels: Levels
    shape: torch.Size

    @property
    def maps(self) -> list[Tensor]:
        return self.levels.maps

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.maps[0].dtype

    @property
    def device(self) -> torch.device:
        return self.maps[0].device

    @property
    def requires_grad(self) -> bool:
        return self.levels.requires_grad


def indices(kind: type[Deferred], index: Any, rows: int) -> Tensor:
    """Which of so many rows a mask (rows,) or indices (m,) name, as indices; a kind refuses anything else."""
    if not isinstance(index, Tensor) or index.dim() != 1 or index.dtype not in (torch.bool, torch.int64):
        refuse(kind, '__getitem__ of anything but a mask of rows or their indices')
    if index.dtype is not torch.bool:
        return index
    if index.size(0) != rows:
        raise IndexError(f'a mask of {index.size(0)} rows of {rows}')
    return index.nonzero().squeeze(1)


class Rows(Logits):
    """The logits of all anchors of some levels, (N, C): level by level, image by image, in the order of the pixels."""

    def __init__(self, maps: list[Tensor] | Levels, classes: int, scored: bool = False) -> None:
        self.levels = maps if isinstance(maps, Levels) else Levels(maps)
        self.classes, self.scored = classes, scored
        # (B, H, W, A, C): the rows in the order of mmdet's, each where it lies
        self.views = [
            level.view(len(level), level.size(1) // classes, classes, *level.shape[2:]).permute(0, 3, 4, 1, 2)
            for level in self.maps
        ]
        self.shape = torch.Size((sum(level.numel() for level in self.maps) // classes, classes))

    def tensor(self) -> Tensor:
        """The copy, for a loss of each element: its result is as large."""
        if not self.levels.are_held:
            refuse(Rows, 'a copy of all')
        return torch.cat([view.reshape(-1, self.classes) for view in self.views])

    def contiguous(self) -> Rows:
        """Themselves (ATSS, VFNet): the loss reads them however they lie."""
        return self

    def new_tensor(self, data) -> Tensor:
        """What DETR's heads average over the processes."""
        return self.maps[0].new_tensor(data)

    def detach(self) -> Rows:
        return Rows(self.levels.detach(), self.classes, self.scored)

    def sigmoid(self) -> _RowByRow:
        """The probabilities, of which GFL looks at the positives' greatest."""
        return _RowByRow(self, torch.sigmoid)

    def __getitem__(self, index: Tensor | tuple[slice, slice]) -> Any:
        """The rows of a mask (N,) or of indices (M,), copied; or [:, :C], all of them (FocalCustomLoss's accuracy)."""
        if isinstance(index, tuple) and index == (slice(None), slice(None, self.classes)):
            return self
        rows = self.shape[0]
        index = indices(Rows, index, rows)
        picked, order, first = [], [], 0
        for level, view in enumerate(self.views):
            last = first + math.prod(view.shape[:-1])
            of_level = ((index >= first) & (index < last)).nonzero().squeeze(1)
            places = unravel_index(index[of_level] - first, view.shape[:-1])
            picked.append(self.levels.picked(level, view, places))
            order.append(of_level)
            first = last
        found = torch.cat(order)
        if found.size(0) != index.size(0):
            raise IndexError(f'indices of rows outside [0, {rows})')
        return torch.cat(picked)[found.argsort()]

    def total(self, problems: list[Problem], statistics: Tensor | None) -> Any:
        """The sum of the problems of each part."""
        return self.levels.total(problems, statistics)

    def parts(self, target, weight) -> Iterator[tuple[Tensor, Any, Any]]:
        """(a level's view, the part of the target, or of a pair of them, and that of the weight which belong to it)."""
        first, rows = 0, self.shape[0]
        for view in self.views:
            last = first + view.numel() // self.classes
            yield view, *(_part(operand, rows, slice(first, last), view.shape) for operand in (target, weight))
            first = last

    @classmethod
    def __torch_function__(cls, function: Callable, types, args=(), kwargs=None):
        if function is torch.cat and len(args) == 1 and not kwargs and all(isinstance(each, Rows) for each in args[0]):
            first = args[0][0]
            kind = first.classes, type(first.levels)
            if all((each.classes, type(each.levels)) == kind for each in args[0]):
                levels = functools.reduce(operator.add, [each.levels for each in args[0]])
                return Rows(levels, first.classes, first.scored)
        if function is torch.zeros_like and len(args) == 1 and not kwargs:
            return args[0]._no_targets()
        return super().__torch_function__(function, types, args, kwargs)

    def _no_targets(self) -> Scored | Tensor:
        """What VFNet fills with its targets: of the logits' size only for a loss that takes nothing less.

        At least in float32, as the qualities are: PyTorch sets them into no other dtype.
        """
        dtype = torch.promote_types(self.dtype, torch.float32)
        if not self.scored:
            return self.maps[0].new_zeros(self.shape, dtype=dtype)
        labels = torch.full(self.shape[:1], self.classes, device=self.device)
        return Scored(labels, torch.zeros_like(labels, dtype=dtype))


class Scored(NamedTuple):
    """Dense targets (N, C) of which at most one of each row is not 0, as labels (N,), C where all are, and scores (N,)."""

    labels: Tensor
    scores: Tensor

    def __setitem__(self, places: tuple[Tensor, Tensor], values: Tensor) -> None:
        rows, labels = places
        self.labels[rows], self.scores[rows] = labels, values.to(self.scores.dtype)


class _RowByRow(Deferred):
    """A function of rows, computed of those that are picked from it."""

    def __init__(self, rows: Rows, function: Callable[[Tensor], Tensor]) -> None:
        self.rows, self.function = rows, function

    def max(self, dim: int) -> tuple[_RowByRow, _RowByRow]:
        if dim != 1:
            refuse(_RowByRow, f'max over dimension {dim}')
        values = _RowByRow(self.rows, lambda rows: self.function(rows).max(dim=1).values)
        return values, _RowByRow(self.rows, lambda rows: self.function(rows).max(dim=1).indices)

    def __getitem__(self, index: Tensor) -> Tensor:
        block = self.rows.levels.block
        if block is None or not isinstance(index, Tensor) or index.dim() != 1:
            return self.function(self.rows[index])
        index = index.nonzero().squeeze(1) if index.dtype is torch.bool else index
        return torch.cat([self.function(self.rows[part]) for part in index.split(block)])


def _part(operand, rows: int, of: slice, shape: torch.Size):
    """What an operand of all rows holds for some of them, in the shape of their view."""
    if operand is None:
        return None
    if isinstance(operand, (tuple, list)):
        return tuple(_part(each, rows, of, shape) for each in operand)
    if operand.dim() == 2 and operand.size(0) == 1 != rows:  # one per class
        return operand.reshape(*[1] * (len(shape) - 1), -1)
    if operand.dim() == 1 and operand.size(0) == rows * shape[-1] != rows:  # one per element, flat
        operand = operand.reshape(rows, -1)
    if operand.size(0) != rows:
        raise ValueError(f'{rows} rows of logits, but a target or weight of shape {tuple(operand.shape)}')
    return (operand if of == slice(0, rows) else operand[of]).view(*shape[:-1], *operand.shape[1:])
