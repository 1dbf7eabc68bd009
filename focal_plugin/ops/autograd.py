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
from focal_plugin.kernels import eager
from focal_plugin.kernels.problem import Problem
from focal_plugin.ops import library
from focal_plugin.tensors import resolved
from focal_plugin.tracing import is_batch, is_transformed


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred, target, score, weight, table, avg_factor, channel, config, statistics):
        tensors = (pred, target, score, weight, table, avg_factor, channel)
        grad = None  # under an upstream gradient of 1
        if statistics is None and library.in_one_pass(*tensors, *config):
            value, grad = library.forward_and_backward(*tensors, *config)
        else:
            value = library.forward(*tensors, *config)
        ctx.save_for_backward(*tensors, grad)  # the gradient too, so that activation checkpointing can drop it
        ctx.config = config
        ctx.is_spent = False
        ctx.statistics = statistics  # not saved: every backward of an iteration adds to it
        return value

    @staticmethod
    def backward(ctx, upstream):
        *tensors, kept = ctx.saved_tensors
        # Given away, the kept gradient may be changed in its place: a second backward computes its own.
        kept, ctx.is_spent = None if ctx.is_spent else kept, True
        statistics, ctx.statistics = ctx.statistics, None  # a second backward of the same loss counts no second time
        if torch.is_grad_enabled() or is_batch(upstream) or any(ctx.needs_input_grad[1:6]):
            if statistics is not None:
                ones = torch.ones(upstream.shape, dtype=upstream.dtype, device=upstream.device)
                statistics += library.backward(ones, *tensors, *ctx.config, True)[1]
            return *_composed(ctx, upstream, tensors), None, None, None
        grad = None if kept is None else _scaled(kept, upstream)
        if grad is None:
            grad, gathered = library.backward(resolved(upstream), *tensors, *ctx.config, statistics is not None)
            if statistics is not None:
                statistics += gathered
        return grad, *[None] * 8


def _scaled(kept: Tensor, upstream: Tensor) -> Tensor | None:
    """The kept gradient under an upstream gradient; None where 0 times that is NaN, also in rows that are ignored."""
    factor = upstream.item()  # on a CPU, where nothing waits
    if not math.isfinite(factor):
        return None
    # .data: what is saved for a second backward is this memory too, and must not be found to have changed.
    return kept.data if factor == 1 else kept.data.mul_(factor)


def _composed(ctx, upstream: Tensor, tensors: list[Tensor | None]) -> list[Tensor | None]:
    """The gradients of pred, target, score, weight, table and avg_factor by plain autograd operations.

    They may be differentiated again (create_graph=True), and hold an upstream gradient that a transform sees through.
    """
    again = torch.is_grad_enabled()
    needed = ctx.needs_input_grad[:6]
    with torch.enable_grad():
        inputs = [
            t if t is None or again or not needs else t.detach().requires_grad_()
            for t, needs in zip(tensors, needed, strict=False)
        ]
        loss = library.composed(library.problem_of(*inputs, tensors[6], *ctx.config[:-1]))
    wanted = [t for t, needs in zip(inputs, needed, strict=True) if needs]
    found = iter(torch.autograd.grad(loss, wanted, upstream, create_graph=again, allow_unused=True))
    return [next(found) if needs else None for needs in needed]


def loss_of(problem: Problem, backend: str, statistics: Tensor | None = None) -> Tensor:
    """Runs a problem on a backend: shape () or (1,) where it reduces, else that of the rows or of pred."""
    if is_transformed() or (backend == 'torch' and torch.compiler.is_compiling()):
        return library.composed(problem)  # what a transform sees through and a compiler fuses best
    if backend == 'torch':
        warn_if_slow(problem.pred.device.type, problem.pred.dtype)
        problem = eager.of_own_channel(problem)
    *tensors, spec, parameters, activated, ignore_index, scale, output = problem
    config = (spec.name, parameters, activated, ignore_index, scale, output, backend)
    if torch.is_grad_enabled() and (
        problem.pred.requires_grad or any(t is not None and t.requires_grad for t in tensors)
    ):
        return _Loss.apply(*tensors, config, statistics)
    return library.forward(*tensors, *config)
