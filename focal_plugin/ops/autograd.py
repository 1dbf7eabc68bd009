"""The autograd.Function of every loss.

A GPU computes the terms again in the backward, since there memory is what costs. On a CPU the arithmetic is, so the forward
leaves the gradient behind where one is wanted: the backward's own allocation, made earlier.
"""

from __future__ import annotations
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from focal_plugin.backend import warn_if_slow
from focal_plugin.compatibility import is_compiling
from focal_plugin.kernels.problem import TENSORS, Problem
from focal_plugin.kernels.torch.elementwise import of_selected_channel
from focal_plugin.ops import library
from focal_plugin.tensors import require_grad, resolved
from focal_plugin.tracing import is_batch, is_transformed

_BEFORE = 3  # arguments of the function before the problem's tensors


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, statistics, pass_, settings, *tensors):
        value = grad = ctx.gathered = None  # the gradient is that under an upstream gradient of 1
        if pass_ is not None:
            value, grad = pass_(tensors, settings)
        if value is None:
            problem = Problem(*tensors, *settings)
            if _is_kept(problem, statistics is not None):
                if statistics is not None:
                    ctx.gathered = library.new_statistics(problem)
                value, grad = library.forward_and_backward(problem, statistics=ctx.gathered)
            else:
                value = library.forward(problem)
        ctx.save_for_backward(*tensors, grad)  # the gradient too, so that activation checkpointing can drop it
        ctx.settings = settings
        ctx.is_spent = False
        ctx.statistics = statistics  # not saved: every backward of an iteration adds to it
        return value

    @staticmethod
    def backward(ctx, upstream):
        *tensors, kept = ctx.saved_tensors
        # Given away, the kept gradient may be changed in its place: a second backward computes its own.
        kept, ctx.is_spent = None if ctx.is_spent else kept, True
        needed = ctx.needs_input_grad[_BEFORE:]
        statistics, ctx.statistics = ctx.statistics, None  # a second backward of the same loss counts no second time
        if kept is not None and not _is_composed(needed, upstream) and (grad := _scaled(kept, upstream)) is not None:
            if statistics is not None:
                statistics += ctx.gathered
            return *[None] * _BEFORE, grad, *[None] * (TENSORS - 1)
        return *[None] * _BEFORE, *_gradients(Problem(*tensors, *ctx.settings), needed, upstream, statistics)


def _is_kept(problem: Problem, gathers: bool) -> bool:
    """Whether the forward leaves the gradient behind.

    In float16 it would underflow without the loss scale, which comes with the backward.
    """
    may_keep = problem.backend == 'native' and problem.pred.dtype != torch.float16
    return may_keep and library.has_one_pass(problem, gathers)


class _Levels(torch.autograd.Function):
    """The sum of some problems' sums: the levels of a head, whose parts are added up at once."""

    @staticmethod
    def forward(ctx, statistics, settings, *tensors):
        ctx.save_for_backward(*tensors)
        ctx.settings, ctx.statistics = settings, statistics
        return library.total(_problems(tensors, settings))

    @staticmethod
    def backward(ctx, upstream):
        statistics, ctx.statistics = ctx.statistics, None
        needed, found = ctx.needs_input_grad[2:], []
        for k, problem in enumerate(_problems(ctx.saved_tensors, ctx.settings)):
            found += _gradients(problem, needed[k * TENSORS : (k + 1) * TENSORS], upstream, statistics)
        return None, None, *found


def _problems(tensors: Sequence[Any], settings: Sequence[tuple]) -> list[Problem]:
    """The problems of so many tensors each."""
    return [Problem(*tensors[k * TENSORS : (k + 1) * TENSORS], *each) for k, each in enumerate(settings)]


def _is_composed(needed: Sequence[bool], upstream: Tensor) -> bool:
    """Whether plain autograd operations give the gradients: of more than pred, or of a gradient that is looked through."""
    return torch.is_grad_enabled() or is_batch(upstream) or any(needed[1:])


def _gradients(
    problem: Problem, needed: Sequence[bool], upstream: Tensor, statistics: Tensor | None
) -> list[Tensor | None]:
    """The gradients of a problem's tensors, the statistics being added to."""
    if _is_composed(needed, upstream):
        if statistics is not None:
            ones = torch.ones(upstream.shape, dtype=upstream.dtype, device=upstream.device)
            statistics += library.backward(problem, ones, True)[1]
        return _composed(problem, needed, upstream)
    grad, gathered = library.backward(problem, resolved(upstream), statistics is not None)
    if statistics is not None:
        statistics += gathered
    return [grad, *[None] * (TENSORS - 1)]


def _scaled(kept: Tensor, upstream: Tensor) -> Tensor | None:
    """The kept gradient under an upstream gradient; None where that product is not what the backward gives.

    0 times what is not finite is NaN, also in rows that are ignored. And a gradient of bfloat16 has been rounded to 8 bits,
    to fewer where it is subnormal: halving it, as gradient accumulation does, is all that needs no other ones.
    """
    factor = upstream.item()  # on a CPU, where nothing waits
    if not math.isfinite(factor):
        return None
    if kept.dtype != torch.float32 and (factor > 1 or math.frexp(factor)[0] != 0.5):
        return None
    # .data: what is saved for a second backward is this memory too, and must not be found to have changed.
    return kept.data if factor == 1 else kept.data.mul_(factor)


def _composed(problem: Problem, needed: Sequence[bool], upstream: Tensor) -> list[Tensor | None]:
    """The gradients of the needed tensors by plain autograd operations.

    They may be differentiated again (create_graph=True), and hold an upstream gradient that a transform sees through.
    """
    if not any(needed):  # a level that needs none among others
        return [None] * TENSORS
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [
            t.detach().requires_grad_() if needs and not again and t is not None else t
            for t, needs in zip(problem[:TENSORS], needed)
        ]
        loss = library.composed(Problem._make([*inputs, *problem[TENSORS:]]))
    wanted = [t for t, needs in zip(inputs, needed) if needs and t is not None]
    found = iter(torch.autograd.grad(loss, wanted, upstream, create_graph=again, allow_unused=True))
    return [next(found) if needs else None for needs in needed]


def loss_of(problem: Problem, statistics: Tensor | None = None) -> Tensor:
    """Runs a problem: shape () or (1,) where it reduces, else that of the rows or of pred."""
    backend, pred = problem.backend, problem.pred
    if is_transformed() or (backend == 'torch' and is_compiling()):
        return library.composed(problem)  # what a transform sees through and a compiler fuses best
    if backend == 'torch':
        warn_if_slow(pred.device.type, pred.dtype)
        problem = of_selected_channel(problem)
    tensors = problem[:TENSORS]
    if torch.is_grad_enabled() and require_grad(tensors):
        return _Loss.apply(statistics, None, problem[TENSORS:], *tensors)
    return library.forward(problem)


def prepared(problem: Problem) -> Callable | None:
    """What gives loss and gradient of problems like this one, or None where they go their way by loss_of."""
    return library.prepared(problem) if _is_kept(problem, False) else None


def prepared_loss_of(pass_: Callable, settings: tuple, tensors: Sequence[Tensor | None]) -> Tensor:
    """loss_of the problem of these tensors and settings, by what was prepared for one like it; pred requires a gradient."""
    return _Loss.apply(None, pass_, settings, *tensors)


def total_of(problems: Sequence[Problem], statistics: Tensor | None = None) -> Tensor:
    """The sum of problems that reduce, shape () or (1,); where the kernels have a way to add them up at once, by that."""
    if is_transformed() or is_compiling() or not library.has_total(problems):
        first, *others = [loss_of(problem, statistics) for problem in problems]
        return sum(others, first)
    tensors = [tensor for problem in problems for tensor in problem[:TENSORS]]
    if torch.is_grad_enabled() and require_grad(tensors):
        return _Levels.apply(statistics, [problem[TENSORS:] for problem in problems], *tensors)
    return library.total(problems)
