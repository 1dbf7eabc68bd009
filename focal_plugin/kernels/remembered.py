"""What follows from a problem's shapes, strides, dtypes and numbers, and from no value in a tensor: found once."""

from __future__ import annotations
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from focal_plugin.kernels.problem import TENSORS, Problem

MOST = 4096  # launches that are kept: training on images of many sizes makes hundreds
ACCESS = 16  # bytes of the longest access: whether an address is a multiple of it decides how a kernel reads


def described(*tensors: Tensor | None) -> tuple:
    """What a launch depends on of tensors."""
    return tuple(
        [
            None if each is None else (each.dtype, each.shape, each.stride(), each.data_ptr() % ACCESS)
            for each in tensors
        ]
    )


def key_of(problem: Problem, upstream: Tensor | None) -> tuple:
    """What a launch depends on of a problem; what it writes is allocated anew, and so lies alike."""
    numbers = (*problem.parameters, problem.activated, problem.ignore_index)
    return (problem.variant, problem.output, problem.pred.device, *numbers, described(*problem[:TENSORS], upstream))


def remembered(memory: dict[Hashable, Any], key: Hashable, make: Callable[[], Any]) -> Any:
    """What was made for a key, now or earlier."""
    try:
        return memory[key]  # hashed once: a key of many strides takes longer than what it finds
    except KeyError:
        pass
    made = make()
    if len(memory) >= MOST:
        memory.clear()
    memory[key] = made
    return made
