"""Counts the bytes that PyTorch's operators move, from a trace of them.

An operator reads each of its tensors from memory once and writes each of its results once, whatever its caches hold from the
operator before. A view moves nothing, a dimension that is only expanded (stride 0) is read once, and what an operator writes
in place it reads too. Nothing is computed or timed, so meta tensors will do.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FREE = {'_unsafe_view', 'empty', 'empty_like', 'new_empty', 'new_empty_strided'}
FILLS = {'fill_', 'new_zeros', 'ones_like', 'zero_', 'zeros_like'}
STREAMS = {'_to_copy', 'clone', 'max', 'sum'}  # beside what PyTorch itself calls pointwise


class Access(NamedTuple):
    """One tensor that an operator reads or writes."""

    elements: int
    bytes: int


class Step(NamedTuple):
    """One operator that moves something."""

    name: str
    accesses: tuple[Access, ...]


def access(tensor: Tensor) -> Access:
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    elements = math.prod(size for size, stride in sizes if stride != 0)
    return Access(elements, elements * tensor.element_size())


def tensors(values) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class Trace(TorchDispatchMode):
    """Records the operators that run inside.

    Args:
        kernels: of each operator that is not PyTorch's, called with its arguments: what it writes beside its results and
            reads back. An argument that such an operator writes it does not read.

    Attributes:
        steps: what the operators moved, in their order.

    Raises:
        LookupError: an operator of which it is not known what it moves.
    """

    def __init__(self, kernels: Mapping[OpOverload, Callable[..., Iterable[Tensor]]] | None = None) -> None:
        super().__init__()
        self.kernels = kernels or {}
        self.steps: list[Step] = []

    @property
    def bytes(self) -> int:
        return sum(each.bytes for step in self.steps for each in step.accesses)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        moved = self._moved(func, args, kwargs or {}, out)
        if moved:
            self.steps.append(Step(func.overloadpacket.__name__, tuple(map(access, moved))))
        return out

    def _moved(self, func: OpOverload, args: tuple, kwargs: dict, out) -> list[Tensor]:
        name = func.overloadpacket.__name__
        if func in self.kernels:
            schema = zip(func._schema.arguments, args, strict=False)  # the rest are keywords or defaults
            written = [value for argument, value in schema if argument.is_write]
            read = [each for each in tensors((args, kwargs)) if not any(each is other for other in written)]
            return [*read, *written, *tensors(out), *2 * tensors(self.kernels[func](*args, **kwargs))]
        if func.namespace == 'aten':
            if func.is_view or name in FREE:
                return []
            if name in FILLS:
                return tensors(out)
            if name == 'copy_':
                return [args[1], out]
            if name in STREAMS or torch.Tag.pointwise in func.tags:
                return tensors((args, kwargs, out))
        raise LookupError(f'{func}: how much it moves is not known')
