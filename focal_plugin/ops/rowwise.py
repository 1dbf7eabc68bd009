"""The autograd.Function of the losses over a softmax.

Nothing but its arguments is saved: a row that the backward reads is in registers, or in the first-level cache, long enough
to find its sum of exponentials again, and one float32 a row could not hold its logarithm to the digits promised.
"""

import torch
from torch import Tensor

from focal_plugin.backend import warn_if_slow
from focal_plugin.kernels import rowwise_eager
from focal_plugin.kernels.problem import Problem
from focal_plugin.ops import library


class _Rowwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred, target, weight, table, avg_factor, config):
        ctx.save_for_backward(pred, target, weight, table, avg_factor)
        ctx.config = config
        return library.forward_rows(pred, target, weight, table, avg_factor, *config)

    @staticmethod
    def backward(ctx, upstream):
        arguments = (*ctx.saved_tensors, *ctx.config)
        if torch.is_grad_enabled():
            # create_graph=True: the gradient is to be differentiated again, so plain autograd operations give it.
            problem = library.row_problem_of(*arguments[:-1])
            (grad,) = torch.autograd.grad(rowwise_eager.compose(problem), problem.pred, upstream, create_graph=True)
        else:
            grad = library.backward_rows(upstream, *arguments)
        return grad, *[None] * 5


def rowwise(problem: Problem, backend: str) -> Tensor:
    """Runs a problem on a backend: shape () or (1,) where it reduces, else one value a row."""
    if backend == 'torch':
        if torch.compiler.is_compiling():
            return rowwise_eager.compose(problem)  # what a compiler fuses best
        warn_if_slow(problem.pred.device.type, problem.pred.dtype)
    pred, target, _, weight, table, avg_factor, _, spec, parameters, _, ignore_index, scale, output = problem
    tensors = (pred, target, weight, table, avg_factor)
    config = (spec.name, parameters, ignore_index, scale, output, backend)
    if torch.is_grad_enabled() and pred.requires_grad:
        return _Rowwise.apply(*tensors, config)
    return library.forward_rows(*tensors, *config)
