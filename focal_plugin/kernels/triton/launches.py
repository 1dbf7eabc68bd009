"""Launches like earlier ones, made without asking again what follows from the same shapes, strides and numbers.

Triton's JIT looks at each of a launch's 70 arguments to find the kernel that was compiled for it, which takes longer than
a GPU takes for the loss of a few thousand rows. What it finds, and how the logits are walked, depends on no value in a
tensor, so it is kept.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor

from focal_plugin.kernels.problem import Problem
from focal_plugin.kernels.triton import features

MOST = 4096  # launches that are kept: training on images of many sizes makes hundreds
_kept: dict[Hashable, 'Launch | None'] = {}


class Launch:
    """A launch but for its tensors, and for a number that may be another one each time.

    Attributes:
        kernel: gives the kernel, for its first launch.
        grid: the numbers of programs.
        constants: the compile-time arguments by name.
        warps: that share a program.
        before, after: the numbers before the one that changes, and after it.
        layout: how the logits are walked.
    """

    def __init__(
        self, kernel: Callable[[], Any], grid: tuple[int, int, int], constants: dict[str, Any], warps: int,
        before: Sequence[int] = (), after: Sequence[float] = (), layout=None,
    ):  # fmt: skip
        self.kernel, self.grid, self.constants, self.warps, self.layout = kernel, grid, constants, warps, layout
        self.before, self.after = tuple(before), tuple(after)
        self._again = None

    def __call__(self, tensors: Sequence[Tensor | None], *changing: float) -> None:
        if self._again is not None:
            addresses = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
            self._again(*addresses, *self.before, *changing, *self.after)
            return
        arguments = (*tensors, *self.before, *changing, *self.after)
        kernel, options = self.kernel(), {'num_warps': self.warps, 'enable_fp_fusion': True}
        compiled = kernel[self.grid](*arguments, **self.constants, **options)
        if features.RELAUNCHES and compiled is not None:
            self.after = (*self.after, *(self.constants[name] for name in kernel.arg_names[len(arguments) :]))
            self._again = compiled[self.grid]


def described(tensor: Tensor | None) -> tuple | None:
    """What a launch depends on of a tensor; Triton compiles for addresses that are multiples of 16, and for others."""
    return None if tensor is None else (tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr() % 16)


def kept(key: Hashable, make: Callable[[], Launch | None]) -> Launch | None:
    """What was made for a key, now or earlier."""
    if key not in _kept:
        if len(_kept) >= MOST:
            _kept.clear()
        _kept[key] = make()
    return _kept[key]


def like(
    problem: Problem, upstream: Tensor | None, make: Callable[[], Launch | None], gathers: bool = False
) -> Launch | None:
    """The launch of a problem like this one; what it writes is allocated anew, and so lies alike."""
    numbers = (*problem.parameters, problem.activated, problem.ignore_index)
    operands = map(described, (*problem[:7], upstream))
    key = (problem.spec.name, problem.output, gathers, problem.pred.device, *numbers, *operands)
    return kept(key, make)
