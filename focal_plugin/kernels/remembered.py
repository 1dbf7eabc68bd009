"""What follows from a problem's shapes, strides, dtypes and numbers, and from no value in a tensor: found once."""

from __future__ import annotations
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from focal_plugin.kernels.problem import TENSORS, Problem

MOST = 4096  # launches that are kept: training on images of many sizes makes hundreds
ACCESS = 16  # bytes of the longest access: whether an address is a multiple of it decides how a kernel reads


def described(tensor: Tensor | None) -> tuple | None:
    """What a launch depends on of a tensor."""
    return None if tensor is None else (tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr() % ACCESS)


def key_of(problem: Problem, upstream: Tensor | None) -> tuple:
    """What a launch depends on of a problem; what it writes is allocated anew, and so lies alike."""
    numbers = (*problem.parameters, problem.activated, problem.ignore_index)
    operands = map(described, (*problem[:TENSORS], upstream))
    return (problem.variant, problem.output, problem.pred.device, *numbers, *operands)


def remembered(memory: dict[Hashable, Any], key: Hashable, make: Callable[[], Any]) -> Any:
    """What was made for a key, now or earlier."""
    if key not in memory:
        if len(memory) >= MOST:
            memory.clear()
        memory[key] = make()
    return memory[key]
