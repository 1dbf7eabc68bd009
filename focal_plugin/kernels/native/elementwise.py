"""The native backend's elementwise family."""

from __future__ import annotations

import torch
from torch import Tensor

from focal_plugin.kernels.native import call, loader
from focal_plugin.kernels.problem import Problem


def forward(problem: Problem) -> Tensor:
    if problem.reduces:
        return _total(problem, call.run(problem, None))
    pred = problem.selected(problem.pred)
    out = torch.empty_like(pred) if problem.output == 'element' else pred.new_zeros(pred.shape[:-1])
    call.run(problem, out)
    return out


def forward_and_backward(problem: Problem, in_place: bool = False) -> tuple[Tensor, Tensor]:
    """The sum and its gradient, in one pass over the logits, all of whose channels are read."""
    out = problem.pred if in_place else torch.empty_like(problem.pred)
    return _total(problem, call.run(problem, out, derivative=True, both=True)), out


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    out = _empty_gradient(problem)
    if problem.reduces:
        # Multiplied last, as the gradient of the one pass is: the same bits.
        call.run(problem, out, derivative=True, after=float(upstream), statistics=statistics)
    else:
        call.run(problem, out, upstream, derivative=True, statistics=statistics)
    return out


def _total(problem: Problem, total: float) -> Tensor:
    result = torch.scalar_tensor(total, dtype=torch.float32)
    return result if problem.avg_factor is None else result.reshape(problem.avg_factor.shape)


def _empty_gradient(problem: Problem) -> Tensor:
    return torch.empty_like(problem.pred) if problem.channel is None else loader.zeros_like(problem.pred)
