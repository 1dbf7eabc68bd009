"""The autograd.Function of every sigmoid variant."""

import torch
from torch import Tensor

from focal_plugin.backend import warn_if_slow
from focal_plugin.kernels import eager
from focal_plugin.kernels.problem import Problem
from focal_plugin.ops import library


def _forward(*arguments) -> Tensor:
    if arguments[-1] == 'torch':
        return eager.forward(library.problem_of(*arguments[:-1]))
    return library.elementwise_forward(*arguments)


def _backward(upstream: Tensor, *arguments) -> Tensor:
    # Not an operator: it differentiates a chunk at a time, which nothing below autograd may do.
    if arguments[-1] == 'torch':
        return eager.backward(library.problem_of(*arguments[:-1]), upstream)
    return library.elementwise_backward(upstream, *arguments)


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred, target, score, weight, table, avg_factor, *config):
        ctx.save_for_backward(pred, target, score, weight, table, avg_factor)
        ctx.config = config
        return _forward(pred, target, score, weight, table, avg_factor, *config)

    @staticmethod
    def backward(ctx, upstream):
        if torch.is_grad_enabled():
            # create_graph=True: the gradient is to be differentiated again, so plain autograd operations give it.
            problem = library.problem_of(*ctx.saved_tensors, *ctx.config[:-1])
            (grad,) = torch.autograd.grad(eager.compose(problem), problem.pred, upstream, create_graph=True)
        else:
            grad = _backward(upstream, *ctx.saved_tensors, *ctx.config)
        return grad, *[None] * (5 + len(ctx.config))


def elementwise(problem: Problem, backend: str) -> Tensor:
    """Runs a problem on a backend: shape () or (1,) where it reduces, else pred's."""
    if backend == 'torch':
        if torch.compiler.is_compiling():
            return eager.compose(problem)  # what a compiler fuses best
        warn_if_slow(problem.pred.device.type, problem.pred.dtype)
    *tensors, spec, parameters, activated, ignore_index, scale, reduce = problem
    arguments = (*tensors, spec.name, parameters, activated, ignore_index, scale, reduce, backend)
    if torch.is_grad_enabled() and problem.pred.requires_grad:
        return _Elementwise.apply(*arguments)
    return _forward(*arguments)
