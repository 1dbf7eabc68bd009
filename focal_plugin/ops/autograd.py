"""The autograd.Function of every loss.

A GPU computes the terms again in the backward, since there memory is what costs. On a CPU the arithmetic is, so the forward
of a sigmoid loss leaves the gradient behind where one is wanted: the backward's own allocation, made earlier. Of a softmax
nothing is left behind: a row that the backward reads is in registers, or in the first-level cache, long enough to find its
sum of exponentials again, and one float32 a row could not hold its logarithm to the digits promised.
"""

import math

import torch
from torch import Tensor

from focal_plugin.backend import warn_if_slow
from focal_plugin.kernels.problem import TENSORS, Problem
from focal_plugin.kernels.torch.elementwise import of_selected_channel
from focal_plugin.ops import library
from focal_plugin.tensors import require_grad, resolved
from focal_plugin.tracing import is_batch, is_transformed


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, statistics, settings, *tensors):
        problem = Problem(*tensors, *settings)
        grad = None  # under an upstream gradient of 1
        if statistics is None and library.has_one_pass(problem):
            value, grad = library.forward_and_backward(problem)
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
        problem = Problem(*tensors, *ctx.settings)
        # Given away, the kept gradient may be changed in its place: a second backward computes its own.
        kept, ctx.is_spent = None if ctx.is_spent else kept, True
        statistics, ctx.statistics = ctx.statistics, None  # a second backward of the same loss counts no second time
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or is_batch(upstream) or any(needed[1:]):
            if statistics is not None:
                ones = torch.ones(upstream.shape, dtype=upstream.dtype, device=upstream.device)
                statistics += library.backward(problem, ones, True)[1]
            return None, None, *_composed(problem, needed, upstream)
        grad = None if kept is None else _scaled(kept, upstream)
        if grad is None:
            grad, gathered = library.backward(problem, resolved(upstream), statistics is not None)
            if statistics is not None:
                statistics += gathered
        return None, None, grad, *[None] * (TENSORS - 1)


def _scaled(kept: Tensor, upstream: Tensor) -> Tensor | None:
    """The kept gradient under an upstream gradient; None where 0 times that is NaN, also in rows that are ignored."""
    factor = upstream.item()  # on a CPU, where nothing waits
    if not math.isfinite(factor):
        return None
    # .data: what is saved for a second backward is this memory too, and must not be found to have changed.
    return kept.data if factor == 1 else kept.data.mul_(factor)


def _composed(problem: Problem, needed: tuple[bool, ...], upstream: Tensor) -> list[Tensor | None]:
    """The gradients of the needed tensors by plain autograd operations.

    They may be differentiated again (create_graph=True), and hold an upstream gradient that a transform sees through.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [
            t.detach().requires_grad_() if needs and not again and t is not None else t
            for t, needs in zip(problem[:TENSORS], needed, strict=True)
        ]
        loss = library.composed(Problem._make([*inputs, *problem[TENSORS:]]))
    wanted = [t for t, needs in zip(inputs, needed, strict=True) if needs and t is not None]
    found = iter(torch.autograd.grad(loss, wanted, upstream, create_graph=again, allow_unused=True))
    return [next(found) if needs else None for needs in needed]


def loss_of(problem: Problem, statistics: Tensor | None = None) -> Tensor:
    """Runs a problem: shape () or (1,) where it reduces, else that of the rows or of pred."""
    backend, pred = problem.backend, problem.pred
    if is_transformed() or (backend == 'torch' and torch.compiler.is_compiling()):
        return library.composed(problem)  # what a transform sees through and a compiler fuses best
    if backend == 'torch':
        warn_if_slow(pred.device.type, pred.dtype)
        problem = of_selected_channel(problem)
    tensors = problem[:TENSORS]
    if torch.is_grad_enabled() and require_grad(tensors):
        return _Loss.apply(statistics, problem[TENSORS:], *tensors)
    return library.forward(problem)
