"""The autograd.Function of every sigmoid variant.

A GPU computes the terms again in the backward, since there memory is what costs. On a CPU the arithmetic is, so the forward
leaves the gradient behind where one is wanted: the backward's own allocation, made earlier.
"""

import torch
from torch import Tensor

from focal_plugin.backend import warn_if_slow
from focal_plugin.kernels import eager
from focal_plugin.kernels.problem import Problem
from focal_plugin.ops import library


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred, target, score, weight, table, avg_factor, channel, config, statistics):
        ctx.save_for_backward(pred, target, score, weight, table, avg_factor, channel)
        ctx.config = config
        ctx.statistics = statistics  # not saved: every backward of an iteration adds to it
        ctx.grad = None  # under an upstream gradient of 1
        if statistics is None and library.in_one_pass(pred, channel, *config):
            value, ctx.grad = library.forward_and_backward(
                pred, target, score, weight, table, avg_factor, channel, *config
            )
            return value
        return library.forward(pred, target, score, weight, table, avg_factor, channel, *config)

    @staticmethod
    def backward(ctx, upstream):
        arguments = (*ctx.saved_tensors, *ctx.config)
        done, ctx.grad = ctx.grad, None  # given away: a second backward computes its own
        if torch.is_grad_enabled():
            # create_graph=True: the gradient is to be differentiated again, so plain autograd operations give it.
            problem = library.problem_of(*arguments[:-1])
            (grad,) = torch.autograd.grad(eager.compose(problem), problem.pred, upstream, create_graph=True)
        elif done is not None:
            factor = upstream.item()  # on a CPU, where nothing waits
            grad = done if factor == 1 else done.mul_(factor)
        else:
            grad, gathered = library.backward(upstream, *arguments, ctx.statistics is not None)
            if ctx.statistics is not None:
                ctx.statistics += gathered
                ctx.statistics = None  # a second backward of the same loss counts no second time
        return grad, *[None] * 8


def elementwise(problem: Problem, backend: str, statistics: Tensor | None = None) -> Tensor:
    """Runs a problem on a backend: shape () or (1,) where it reduces, else that of the rows or of pred."""
    if backend == 'torch':
        if torch.compiler.is_compiling():
            return eager.compose(problem)  # what a compiler fuses best
        warn_if_slow(problem.pred.device.type, problem.pred.dtype)
        problem = eager.of_own_channel(problem)
    *tensors, spec, parameters, activated, ignore_index, scale, output = problem
    config = (spec.name, parameters, activated, ignore_index, scale, output, backend)
    if torch.is_grad_enabled() and problem.pred.requires_grad:
        return _Elementwise.apply(*tensors, config, statistics)
    return library.forward(*tensors, *config)
