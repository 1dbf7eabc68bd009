"""Class logits of feature maps as rows of classes that are never copied.

mmdet's dense heads turn maps into rows by ``cls_score.permute(0, 2, 3, 1).reshape(-1, C)``, and some join the levels by
torch.cat. A head that holds a Map instead of the tensor runs the same code and gets Rows, which only remember it; a fused
loss reads the maps where they lie. Whatever else is asked of them is answered by the tensors, copied as mmdet would.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_NHWC = (0, 2, 3, 1)


def _plain(value):
    """A value with Maps and Rows in it made tensors."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value.tensor() if isinstance(value, _Lazy) else value


class _Lazy:
    """What stands for a tensor that has not been made."""

    def tensor(self) -> Tensor:
        raise NotImplementedError

    def __getattr__(self, name: str):
        return getattr(self.tensor(), name)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return function(*_plain(args), **{name: _plain(value) for name, value in (kwargs or {}).items()})


class Map(_Lazy):
    """The class logits of one level, (B, A * C, H, W)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def tensor(self) -> Tensor:
        return self.logits

    def permute(self, *order: int) -> '_Permuted | Tensor':
        return _Permuted(self.logits) if order == _NHWC else self.logits.permute(*order)


class _Permuted(_Lazy):
    """The same as (B, H, W, A * C)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def tensor(self) -> Tensor:
        return self.logits.permute(_NHWC)

    def reshape(self, *shape: int) -> 'Rows | Tensor':
        if len(shape) == 2 and shape[0] == -1 and shape[1] > 0 and self.logits.size(1) % shape[1] == 0:
            return Rows([self.logits], shape[1])
        return self.tensor().reshape(*shape)


class Rows(_Lazy):
    """The logits of all anchors of some levels, (N, C): level by level, image by image, in the order of the pixels."""

    def __init__(self, maps: list[Tensor], classes: int) -> None:
        self.maps, self.classes = maps, classes
        # (B, H, W, A, C): the rows in the order of mmdet's, each where it lies
        self.views = [level.unflatten(1, (-1, classes)).permute(0, 3, 4, 1, 2) for level in maps]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((sum(math.prod(view.shape[:-1]) for view in self.views), self.classes))

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.shape if dim is None else self.shape[dim]

    @property
    def dtype(self) -> torch.dtype:
        return self.maps[0].dtype

    @property
    def device(self) -> torch.device:
        return self.maps[0].device

    @property
    def requires_grad(self) -> bool:
        return any(level.requires_grad for level in self.maps)

    def tensor(self) -> Tensor:
        return torch.cat([view.reshape(-1, self.classes) for view in self.views])

    def detach(self) -> 'Rows':
        return Rows([level.detach() for level in self.maps], self.classes)

    def levels(self, *operands) -> Iterator[tuple]:
        """(a level's view, the operands' parts that belong to it), for targets, pairs of them, and weights."""
        first, rows = 0, self.shape[0]
        for view in self.views:
            last = first + math.prod(view.shape[:-1])
            yield view, *(_part(operand, rows, slice(first, last), view.shape) for operand in operands)
            first = last

    @classmethod
    def __torch_function__(cls, function: Callable, types, args=(), kwargs=None):
        if function is torch.cat and len(args) == 1 and not kwargs and all(isinstance(each, Rows) for each in args[0]):
            if len({each.classes for each in args[0]}) == 1:
                return Rows([level for each in args[0] for level in each.maps], args[0][0].classes)
        if function is torch.zeros_like and len(args) == 1 and not kwargs:
            return args[0].maps[0].new_zeros(args[0].shape)
        return super().__torch_function__(function, types, args, kwargs)


def _part(operand, rows: int, of: slice, shape: torch.Size):
    """What an operand of all rows holds for some of them, in the shape of their view."""
    if operand is None:
        return None
    if isinstance(operand, (tuple, list)):
        return tuple(_part(each, rows, of, shape) for each in operand)
    if operand.dim() == 2 and operand.size(0) == 1 != rows:  # one a class
        return operand.reshape(*[1] * (len(shape) - 1), -1)
    if operand.dim() == 1 and operand.size(0) == rows * shape[-1] != rows:  # one an element, flat
        operand = operand.reshape(rows, -1)
    if operand.size(0) != rows:
        raise ValueError(f'{rows} rows of logits, but a target or weight of shape {tuple(operand.shape)}')
    return operand[of].unflatten(0, shape[:-1])
