"""A problem as the structure that the native libraries take (api.h), and its run."""

from __future__ import annotations
import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from focal_plugin.kernels import checks
from focal_plugin.kernels.native import loader
from focal_plugin.kernels.problem import SCALE, Problem

MAX_DIMS = 64  # as many as torch walks through
MAX_PARAMETERS = 8
TYPES = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.bool: 3,
    torch.uint8: 3,
    torch.int64: 4,
}

_Dims = ctypes.c_int64 * MAX_DIMS


class Operand(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('type', ctypes.c_int64), ('stride', _Dims)]

    def set(self, tensor: Tensor, per_row: bool = False) -> None:
        """Along the classes a tensor per row is never walked."""
        strides = tensor.stride()
        self.data = tensor.data_ptr()
        self.type = TYPES[tensor.dtype]
        self.stride[: len(strides) + per_row] = (*strides, 0) if per_row else strides


class Call(ctypes.Structure):
    _fields_ = [
        ('dims', ctypes.c_int64),
        ('size', _Dims),
        *((name, Operand) for name in ('input', 'target', 'score', 'weight', 'upstream', 'output')),
        ('by_row', ctypes.c_int64),
        ('channel', ctypes.c_void_p),
        ('channels', ctypes.c_int64),
        ('input_channel_stride', ctypes.c_int64),
        ('output_channel_stride', ctypes.c_int64),
        ('per_class_parameters', ctypes.c_void_p),
        ('parameter', ctypes.c_float * MAX_PARAMETERS),
        *((name, ctypes.c_int64) for name in ('exponent', 'has_labels', 'activated', 'derivative', 'both')),
        *((name, ctypes.c_int64) for name in ('has_ignore_index', 'ignore_index')),
        ('scale', ctypes.c_double),
        ('after', ctypes.c_double),
        ('statistics', ctypes.c_void_p),
        ('threads', ctypes.c_int64),
        ('gomp_parallel', ctypes.c_void_p),
        ('sum', ctypes.c_double),
        ('bad_row', ctypes.c_int64),
        ('is_out_of_range', ctypes.c_int64),
    ]


def _filled(
    problem: Problem, output: Tensor | None, upstream: Tensor | None, derivative: bool, both: bool, after: float,
    statistics: Tensor | None,
) -> Call:  # fmt: skip
    pred = problem.pred if problem.channel is None else problem.selected(problem.pred)
    dims, has_labels = pred.dim(), problem.has_labels
    call = Call(
        dims=dims,
        has_labels=has_labels,
        activated=problem.activated,
        derivative=derivative,
        both=both,
        has_ignore_index=problem.ignore_index is not None,
        ignore_index=problem.ignore_index or 0,
        exponent=problem.exponent,
        scale=float(problem.total_scale),
        after=after,
        threads=torch.get_num_threads(),
        gomp_parallel=loader.gomp_parallel(),
    )
    call.size[:dims] = pred.shape
    call.input.set(pred)
    call.target.set(problem.target, has_labels)
    if problem.score is not None:
        call.score.set(problem.score, True)
    if problem.weight is not None:
        call.weight.set(problem.weight)
    if problem.channel is not None:
        call.channel, call.channels = problem.channel.data_ptr(), problem.pred.size(1)
        call.input_channel_stride = problem.pred.stride(1)
        if derivative and output is not None:
            call.output_channel_stride = output.stride(1)
            output = problem.selected(output)
    if output is not None:
        call.by_row = output.dim() < dims
        call.output.set(output, call.by_row)
    if upstream is not None:
        call.upstream.set(upstream)
    if statistics is not None:
        call.statistics = statistics.zero_().data_ptr()
    if problem.per_class_parameters is not None:
        call.per_class_parameters = problem.per_class_parameters.data_ptr()
    else:
        call.parameter[: len(problem.parameters)] = problem.parameters
    return call


class Prepared:
    """A pass for sum and gradient of problems like one, filled in but for the addresses of their tensors and the scale."""

    def __init__(self, problem: Problem):
        grad = torch.empty_like(problem.pred, device='meta')  # its strides, without memory
        self._filled = bytes(_filled(problem, grad, None, True, True, 1.0, None))
        self._run, self._variant = loader.entry_point(problem.variant), loader.variant(problem.variant)

    def __call__(self, tensors: Sequence[Any], settings: tuple) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """The sum and the gradient; (None, None) where a value is refused or to be clamped."""
        pred, target, score, weight, *_ = tensors
        grad = torch.empty_like(pred)
        call = Call.from_buffer_copy(self._filled)
        call.input.data, call.target.data, call.output.data = pred.data_ptr(), target.data_ptr(), grad.data_ptr()
        if score is not None:
            call.score.data = score.data_ptr()
        if weight is not None:
            call.weight.data = weight.data_ptr()
        call.scale, call.threads = settings[SCALE], torch.get_num_threads()
        self._run(ctypes.byref(call), self._variant)
        if call.bad_row >= 0 or call.is_out_of_range:
            return None, None
        return torch.scalar_tensor(call.sum, dtype=torch.float32, device='cpu'), grad


def run(
    problem: Problem, output: Tensor | None, upstream: Tensor | None = None, *, derivative: bool = False,
    both: bool = False, after: float = 1.0, statistics: Tensor | None = None,
) -> float:  # fmt: skip
    """Runs a problem on the CPU.

    Args:
        output: what it writes, or None.
        upstream: the upstream gradient of each element, or None: 1.
        derivative: it writes the gradient instead of the losses.
        both: beside it the sum of the losses is wanted.
        after: a factor of the gradient, by which it is multiplied last.
        statistics: (2, C) float64, to be filled in.

    Returns:
        The sum, where one is wanted.

    Raises:
        ValueError: a label that no class has, a target that is no probability.
    """
    call = _filled(problem, output, upstream, derivative, both, after, statistics)
    loader.entry_point(problem.variant)(ctypes.byref(call), loader.variant(problem.variant))
    if call.bad_row >= 0 and problem.channel is not None:
        raise checks.bad_channel(int(problem.channel[call.bad_row]), problem)
    if call.bad_row >= 0:
        label = problem.target.as_strided((), (), problem.target.storage_offset() + call.bad_row)
        raise checks.bad_label(int(label), problem)
    if call.is_out_of_range:
        read = problem.selected(problem.pred)
        target, score = checks.targets_in_range(read, problem.target, problem.score, problem.ignore_index)
        if target is not problem.target or score is not problem.score:  # rounded to just outside, and clamped
            again = problem._replace(target=target, score=score)
            return run(again, output, upstream, derivative=derivative, both=both, after=after, statistics=statistics)
    return call.sum
