"""The native backend's elementwise family."""

from __future__ import annotations

import torch
from torch import Tensor

from focal_plugin.kernels import checks
from focal_plugin.kernels.native import call, loader
from focal_plugin.kernels.problem import Problem

IN_PLACE = True  # a tile's logits are read before its gradient is written
GATHERS = True  # one pass fills statistics in, too


def forward(problem: Problem) -> Tensor:
    if problem.reduces:
        return _total(problem, call.run(problem, None))
    pred = problem.selected(problem.pred)
    out = torch.empty_like(pred) if problem.output == 'element' else pred.new_zeros(pred.shape[:-1])
    call.run(problem, out)
    return out


def forward_and_backward(problem: Problem, out: Tensor, statistics: Tensor | None = None) -> Tensor:
    """The sum; into out, which may be pred, the gradient, in one pass over the logits, all of whose channels are read."""
    # A target that has to be clamped makes the kernel run again, which would then read gradients for logits.
    if out is problem.pred:
        target, score = checks.targets_in_range(out, problem.target, problem.score, problem.ignore_index)
        problem = problem._replace(target=target, score=score)
    return _total(problem, call.run(problem, out, derivative=True, both=True, statistics=statistics))


def prepared(problem: Problem) -> call.Prepared:
    """forward_and_backward for problems that differ from this one in addresses and scale alone."""
    return call.Prepared(problem)


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    out = _empty_gradient(problem)
    if problem.reduces:
        # Multiplied last, as the gradient of the one pass is: the same bits.
        call.run(problem, out, derivative=True, after=float(upstream), statistics=statistics)
    else:
        call.run(problem, out, upstream, derivative=True, statistics=statistics)
    return out


def _total(problem: Problem, total: float) -> Tensor:
    result = torch.scalar_tensor(total, dtype=torch.float32, device='cpu')
    return result if problem.avg_factor is None else result.reshape(problem.avg_factor.shape)


def _empty_gradient(problem: Problem) -> Tensor:
    return torch.empty_like(problem.pred) if problem.channel is None else loader.zeros_like(problem.pred)
