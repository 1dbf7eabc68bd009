"""Which kernel serves a problem, over which grid, and what it is given but for addresses: found once for problems alike."""

from __future__ import annotations
import ctypes
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from focal_plugin.kernels.cuda import driver
from focal_plugin.kernels.cuda.call import OPERANDS, Call, Packed
from focal_plugin.kernels.layout import Layout
from focal_plugin.kernels.problem import EPS, Problem, contiguous
from focal_plugin.kernels.remembered import ACCESS, described, key_of, remembered

TYPES = {
    torch.float32: 'float', torch.float64: 'double', torch.float16: 'Half', torch.bfloat16: 'BFloat16',
    torch.int64: 'int64', torch.int32: 'int', torch.uint8: 'unsigned char', torch.bool: 'unsigned char',
}  # fmt: skip
MOST_ALONG_ROWS = 4  # logits of an access, the fastest on an H100: what is the same along each row takes registers
THREADS = 128
MOST_ROWS = 2**31 - 2**16  # a block's last may lie beyond
PROGRAMS = 1024  # blocks enough for a whole GPU
OUTPUTS = {'element': 'kElement', 'row': 'kRow', 'sum': 'kSum'}
_SHORT = {'x': 'pred', 'target': 'target', 'score': 'score', 'weight': 'weight', 'upstream': 'upstream', 'out': 'out'}
_kept: dict[Hashable, Any] = {}


class Launch:
    """A launch but for its tensors.

    Attributes:
        grid: the numbers of blocks.
        macros: what the kernel is compiled with.
        parts: of a sum, how many it writes.
    """

    def __init__(self, kernel: str, grid: tuple[int, int], threads: int, macros: Mapping[str, Any], numbers: Call):
        self.kernel, self.grid, self.threads = kernel, grid, threads
        self.macros, self.parts = {**macros, 'THREADS': threads}, grid[0] * grid[1]
        self._packed = Packed(numbers)
        self._function: ctypes.c_void_p | None = None

    def __call__(self, device: torch.device, tensors: Sequence[Tensor | None], scale: float = 1.0) -> None:
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        if self._function is None:
            self._function = driver.loaded(self.kernel, self.macros, device)
        driver.launch(self._function, self.grid, self.threads, self._packed(addresses, scale), device)


def kept(key: Hashable, make: Callable[[], Any]) -> Any:
    """What was made for a key, now or earlier."""
    return remembered(_kept, key, make)


def like(problem: Problem, upstream: Tensor | None, kind: Hashable, make: Callable[[], Any]) -> Any:
    """The launch of a problem like this one."""
    return kept((kind, *key_of(problem, upstream)), make)


def stored(problem: Problem, out: Tensor, upstream: Tensor | None, launch_of: Callable[..., Launch | None]) -> Tensor:
    """Writes out, by the launch that launch_of finds for the problem, out and upstream."""
    if problem.selected(problem.pred).numel() == 0:
        return out.zero_()
    kind = 'stored', out.dtype, out.stride()  # float32, where what is stored is then added up
    launch = like(problem, upstream, kind, lambda: launch_of(problem, out, upstream))
    if launch is None:
        upstream = None if upstream is None else upstream.contiguous()
        empty = torch.empty_like(out, memory_format=torch.contiguous_format)
        return out.copy_(stored(contiguous(problem), empty, upstream, launch_of))
    launch(out.device, tensors_of(problem, upstream, out, None), problem.scale)
    return out


def both(problem: Problem, out: Tensor, launch_of: Callable[..., Launch | None]) -> Tensor:
    """The sum; into out, which may be pred, the gradient under an upstream gradient of 1."""
    pred, result = problem.pred, problem.empty_sum()
    if pred.numel() == 0:
        return result.zero_()
    kind = 'in place' if out is pred else 'one pass'
    launch = like(problem, None, kind, lambda: launch_of(problem, out, None))
    if launch is None:
        grad = torch.empty_like(out, memory_format=torch.contiguous_format)
        result = both(contiguous(problem), grad, launch_of)
        out.copy_(grad)
        return result
    partial = pred.new_empty(launch.parts, dtype=torch.float32)
    launch(pred.device, tensors_of(problem, None, out, partial), problem.scale)
    _add(partial, None, result)  # already over avg_factor
    return result


class Walk:
    """How a kernel walks a problem's logits, and how many blocks a multiprocessor should have at once.

    Args:
        out: what it writes of pred's shape, or by row; None: parts of a sum.
        upstream: the gradient of each element; None where there is one for all.
    """

    def __init__(self, problem: Problem, layout: Layout, out: Tensor | None, upstream: Tensor | None):
        self.problem, self.layout, self.out = problem, layout, out
        self.tensors = {
            'x': problem.pred, 'target': problem.target, 'score': problem.score, 'weight': problem.weight,
            'upstream': upstream, 'out': out,
        }  # fmt: skip
        *_, row, step = self.strides('x')
        self.by_row = out is not None and out.dim() < problem.pred.dim() and problem.channel is None
        # Of few classes a thread that goes through its row asks least often what is the same along it.
        self.alone = self.by_row or layout.narrow
        self.along_rows = self.alone or (row == 1 and (layout.classes == 1 or step != 1) and problem.channel is None)
        is_half = problem.pred.element_size() == 2
        most = MOST_ALONG_ROWS if self.along_rows else ACCESS // problem.pred.element_size()
        self.blocks = 8 if self.along_rows and not is_half else 16
        self.wraps = (
            not self.along_rows and problem.channel is None and self._is_in_order() and layout.classes % most != 0
        )
        self.neighbours = next(n for n in (8, 4, 2, 1) if n <= most and self._fits(n))

    def strides(self, name: str) -> tuple[int, ...]:
        return self.layout.strides[_SHORT[name]]

    def _is_in_order(self) -> bool:
        names = ['pred'] if self.out is None or self.by_row else ['pred', 'out']
        return self.layout.dims == 1 and self.layout.classes > 1 and all(map(self.layout.in_order, names))

    def _fits(self, count: int) -> bool:
        """Whether groups of so many logits lie one behind the other, none of them in two planes or in three rows."""
        return count == 1 or (self.is_together('x', count) and (not self.wraps or count <= self.layout.classes))

    def is_together(self, name: str, count: int) -> bool:
        """Whether groups of so many elements of an operand lie as logits do, where one access may begin."""
        tensor, (*outer, row, step), layout = self.tensors[name], self.strides(name), self.layout
        if tensor is None or count == 1 or tensor.data_ptr() % (count * tensor.element_size()):
            return count == 1
        if self.wraps:
            return layout.in_order(_SHORT[name])
        if self.along_rows:
            return row == 1 and not any(n % count for n in (*outer, step, layout.sizes[1]))
        channel = self.problem.pred.stride(1) if self.problem.channel is not None else 0
        return step == 1 and not any(n % count for n in (*outer, row, layout.classes, channel))

    @property
    def macros(self) -> dict[str, Any]:
        """What an elementwise kernel is compiled with, but for the variant."""
        problem, layout, count = self.problem, self.layout, self.neighbours
        is_long = self.along_rows and not layout.narrow  # rows of any number of classes share a kernel
        together = {
            f'{name.upper()}_TOGETHER': count > 1 and self.is_together(name, count)
            for name in ('x', 'target', 'weight', 'upstream', 'out')
        }
        return {
            'ALONG_ROWS': self.along_rows,
            'WRAPS': self.wraps,
            'NEIGHBOURS': count,
            'IN_ORDER': not self.along_rows and problem.channel is None and self._is_in_order(),
            **({'CLASSES': 1} if is_long else {'CLASSES': layout.classes, 'LAST_LABEL': layout.classes}),
            'FLAT': 'unsigned' if layout.rows * layout.classes < 2**31 else 'unsigned long long',
            **of_rows(problem, layout),
            'HAS_CHANNEL': problem.channel is not None,
            'ROW_WEIGHT': layout.weight == 'row',
            'ELEMENT_WEIGHT': layout.weight == 'element',
            **together,
        }


def of_rows(problem: Problem, layout: Layout) -> dict[str, Any]:
    """What a kernel is compiled with that finds rows."""
    by_row = {'target': problem.has_labels, 'score': problem.score is not None, 'weight': layout.weight == 'row'}
    in_order = all(layout.strides[name][-2] == 1 for name, is_there in by_row.items() if is_there)
    return {'DIMS': layout.dims, 'ROWS_IN_ORDER': layout.dims == 1 and in_order}


def type_of(tensor: Tensor | None) -> str:
    return 'float' if tensor is None else TYPES[tensor.dtype]


def of_average(avg_factor: Tensor | None) -> dict[str, Any]:
    """What a kernel is compiled with that divides by avg_factor."""
    return {'HAS_AVG': avg_factor is not None, 'AVG': type_of(avg_factor), 'EPS': f'{EPS!r}f'}


def of_variant(problem: Problem, out: Tensor | None, upstream: Tensor | None, gradient: bool) -> dict[str, Any]:
    """What every kernel is compiled with that evaluates the variant."""
    pred = problem.pred
    return {
        'HEADER': f'"{problem.variant}.h"',
        'VARIANT': problem.variant,
        'GIVEN_EXPONENT': problem.exponent,
        'X': TYPES[pred.dtype],
        'TARGET': 'float' if problem.has_labels else type_of(problem.target),
        'SCORE': type_of(problem.score),
        'WEIGHT': type_of(problem.weight),
        'UPSTREAM': type_of(upstream),
        'OUT': type_of(out),
        'LABELS': problem.has_labels,
        'HAS_SCORE': problem.score is not None,
        **of_average(problem.avg_factor),
        'HAS_IGNORE': problem.ignore_index is not None,
        'PER_CLASS': problem.per_class_parameters is not None,
        'ZEROS': _zeros_of(problem),
        'ACTIVATED': problem.activated,
        'VANISHES': problem.vanishes,
        'MOSTLY_ZERO': problem.mostly_zero,
        'VALUE': not gradient,
        'GRADIENT': gradient,
        'OUTPUT': OUTPUTS[problem.output],
        'LARGEST': f'{torch.finfo(pred.dtype).max!r}f',
        'LAST_LABEL': 'call.classes' if problem.spec.family == 'elementwise' else 'call.classes - 1',
    }


def _zeros_of(problem: Problem) -> int:
    """A bit for each parameter, whether it is 0 for every class: what that leaves out a kernel need not ask for."""
    if problem.per_class_parameters is not None:
        return 0
    return sum((value == 0) << k for k, value in enumerate(problem.parameters))


def numbers_of(problem: Problem, layout: Layout, out: Tensor | None = None, span: int = 0) -> Call:
    """A call but for the addresses and the scale.

    Raises:
        ValueError: more rows, or longer strides, than 32 bits count.
    """
    between_channels = () if problem.channel is None else (problem.pred.stride(1),)
    longest = max(abs(stride) for strides in (*layout.strides.values(), between_channels) for stride in strides)
    if max(layout.rows, longest) > MOST_ROWS:
        raise ValueError(
            f'the cuda backend counts in 32 bits, got {layout.rows} rows and a stride of {longest}: split the logits, or '
            f"choose another backend: with focal_plugin.use_backend('torch')"
        )
    call = Call(rows=layout.rows, n1=layout.sizes[0], n2=layout.sizes[1], classes=layout.classes, span=span)
    for name in OPERANDS:
        *rows, step = layout.strides[_SHORT[name]]
        operand = getattr(call, name)
        operand.row[:], operand.step = rows, step
    if problem.channel is not None:
        call.channels, call.x_channel = problem.pred.size(1), problem.pred.stride(1)
        call.out_channel = out.stride(1) if out is not None and out.dim() == problem.pred.dim() else 0
    call.ignore_index = problem.ignore_index or 0
    if problem.per_class_parameters is None:
        call.parameter[: len(problem.parameters)] = problem.parameters
    return call


def tensors_of(
    problem: Problem, upstream: Tensor | None, out: Tensor | None, partial: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The tensors of a launch in the order of the call's TENSORS."""
    pred, target, score, weight, per_class, avg, channel, *_ = problem
    return pred, target, score, weight, upstream, out, channel, per_class, avg, partial


def total(problems: Sequence[Problem], launch_of: Callable[..., Launch | None]) -> Tensor:
    """The sum of problems that reduce, over an avg_factor that they share: a launch each, and one that adds their parts."""
    pred, avg_factor, result = problems[0].pred, problems[0].avg_factor, problems[0].empty_sum()
    summed = [_summing(each, launch_of) for each in problems if each.selected(each.pred).numel() > 0]
    if not summed:
        return result.zero_()
    partial, first = pred.new_empty(sum(launch.parts for _, launch in summed), dtype=torch.float32), 0
    for problem, launch in summed:
        part = partial[first : first + launch.parts] if first else partial
        launch(pred.device, tensors_of(problem, None, None, part), problem.scale)
        first += launch.parts
    _add(partial, avg_factor, result)
    return result


def _summing(problem: Problem, launch_of: Callable[..., Launch | None]) -> tuple[Problem, Launch]:
    """(the problem, with copies where its strides ask for them, the launch of its sum's parts)."""
    launch = like(problem, None, 'sum', lambda: launch_of(problem, None, None))
    return _summing(contiguous(problem), launch_of) if launch is None else (problem, launch)


def _add(partial: Tensor, avg_factor: Tensor | None, out: Tensor) -> None:
    """Writes the sum, over avg_factor, into out."""
    launch = kept(
        ('sum', partial.device, partial.numel(), described(avg_factor)),
        lambda: Launch(
            'sum', (1, 1), 512, {**of_average(avg_factor), 'DIMS': 1, 'ROWS_IN_ORDER': True}, Call(rows=partial.numel())
        ),
    )
    launch(partial.device, (*[None] * 5, out, None, None, avg_factor, partial))
