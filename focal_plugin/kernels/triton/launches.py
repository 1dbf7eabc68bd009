"""Launches like earlier ones, made without asking again what follows from the same shapes, strides and numbers.

Triton's JIT looks at each of a launch's 70 arguments to find the kernel that was compiled for it, which takes longer than
a GPU takes for the loss of a few thousand rows. What it finds, and how the logits are walked, depends on no value in a
tensor, so it is kept.
"""

from __future__ import annotations
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from torch import Tensor

from focal_plugin.kernels.problem import Problem
from focal_plugin.kernels.remembered import key_of, remembered
from focal_plugin.kernels.triton import features

_kept: dict[Hashable, Any] = {}


class Launch:
    """A launch but for its tensors, which are a kernel's first arguments, and for numbers that change, the next ones.

    Attributes:
        kernel: the function that Triton compiles.
        grid: the numbers of programs.
        warps: that share a program.
        numbers, constants: the other arguments by name, those of the run and those that a kernel is compiled for.
        layout: the Layout by which the logits are walked, or None.
    """

    def __init__(
        self, kernel, grid: tuple[int, int, int], warps: int, numbers: Mapping[str, float],
        constants: Mapping[str, Any], layout: Any = None,
    ):  # fmt: skip
        self.kernel, self.grid, self.warps = kernel, grid, warps
        self.numbers, self.constants, self.layout = numbers, constants, layout
        self._again: Callable[..., None] | None = None
        self._rest: tuple = ()

    def __call__(self, tensors: Mapping[str, Tensor | None], **changing: float) -> None:
        if self._again is not None:
            addresses = [None if tensor is None else tensor.data_ptr() for tensor in tensors.values()]
            self._again(*addresses, *changing.values(), *self._rest)
            return
        given = {**tensors, **changing, **self.numbers, **self.constants}
        compiled = self.kernel[self.grid](**given, num_warps=self.warps, enable_fp_fusion=True)
        if features.RELAUNCHES and compiled is not None:
            rest = self.kernel.arg_names[len(tensors) + len(changing) :]
            self._rest = tuple(given[name] for name in rest)
            self._again = compiled[self.grid]


def kept(key: Hashable, make: Callable[[], Any]) -> Any:
    """What was made for a key, now or earlier."""
    return remembered(_kept, key, make)


def like(
    problem: Problem, upstream: Tensor | None, make: Callable[[], Launch | None], kind: Hashable = None
) -> Launch | None:
    """The launch of a problem like this one; kind: what is wanted, where the problem and upstream don't say it."""
    return kept((kind, *key_of(problem, upstream)), make)
