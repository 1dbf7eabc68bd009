"""The native backend: fills in a Call and runs it."""

import torch
from torch import Tensor

from focal_plugin.kernels import checks, eager
from focal_plugin.kernels.native import loader
from focal_plugin.kernels.problem import Problem


def _call(
    problem: Problem,
    scale: float,
    output: Tensor | None,
    upstream: Tensor | None = None,
    *,
    derivative: bool = False,
    both: bool = False,
    after: float = 1.0,
    statistics: Tensor | None = None,
) -> loader.Call:
    pred, target, score = problem.own(problem.pred), problem.target, problem.score
    call = loader.Call(
        dims=pred.dim(),
        labels=problem.has_labels,
        activated=problem.activated,
        derivative=derivative,
        both=both,
        has_ignore_index=problem.ignore_index is not None,
        ignore_index=problem.ignore_index or 0,
        scale=scale,
        after=after,
    )
    call.size[: pred.dim()] = pred.shape
    call.input.set(pred, pred.stride())
    # The class dimension of labels and scores is never walked.
    call.target.set(target, (*target.stride(), 0) if problem.has_labels else target.stride())
    if score is not None:
        call.score.set(score, (*score.stride(), 0))
    if problem.weight is not None:
        call.weight.set(problem.weight, problem.weight.stride())
    if problem.channel is not None:
        call.channel, call.channels = problem.channel.data_ptr(), problem.pred.size(1)
        call.channel_stride[0] = problem.pred.stride(1)
        if derivative:
            call.channel_stride[1] = output.stride(1)
            output = problem.own(output)
    if output is not None:
        call.by_row = output.dim() < pred.dim()
        call.output.set(output, (*output.stride(), 0) if call.by_row else output.stride())
    if upstream is not None:
        call.upstream.set(upstream, upstream.stride())
    if statistics is not None:
        call.statistics = statistics.zero_().data_ptr()
    call.exponent = problem.exponent
    if problem.table is not None:
        call.table = problem.table.data_ptr()
    else:
        call.parameter[: len(problem.parameters)] = problem.parameters
    return call


def _run(problem: Problem, scale: float, out: Tensor | None, upstream: Tensor | None = None, **options) -> loader.Call:
    """Fills in a call and runs it.

    Args:
        out: what it writes, or None for a sum.
        options: of _call.
    """
    call = _call(problem, scale, out, upstream, **options)
    loader.run(call, problem.spec)
    if call.bad_row >= 0 and problem.channel is not None:
        raise checks.bad_channel(int(problem.channel[call.bad_row]), problem)
    if call.bad_row >= 0:
        label = problem.target.as_strided((), (), problem.target.storage_offset() + call.bad_row)
        raise checks.bad_label(int(label), problem)
    if call.is_out_of_range:
        read = problem.own(problem.pred)
        target, score = checks.targets_in_range(read, problem.target, problem.score, problem.ignore_index)
        if target is not problem.target or score is not problem.score:  # rounded to just outside, and clamped
            return _run(problem._replace(target=target, score=score), scale, out, upstream, **options)
    return call


def forward(problem: Problem) -> Tensor:
    scale = eager.scale_of(problem)
    if not problem.reduce:
        pred = problem.own(problem.pred)
        out = torch.empty_like(pred) if problem.output == 'element' else pred.new_zeros(pred.shape[:-1])
        _run(problem, float(scale), out)
        return out
    return _total(problem, _run(problem, float(scale), None))


def _total(problem: Problem, call: loader.Call) -> Tensor:
    total = torch.scalar_tensor(call.sum, dtype=torch.float32)
    return total if problem.avg_factor is None else total.reshape(problem.avg_factor.shape)


def _empty_gradient(problem: Problem) -> Tensor:
    return torch.empty_like(problem.pred) if problem.channel is None else loader.zeros_like(problem.pred)


def forward_and_backward(problem: Problem) -> tuple[Tensor, Tensor]:
    """The sum and its gradient, in one pass over the logits."""
    out = _empty_gradient(problem)
    call = _run(problem, float(eager.scale_of(problem)), out, derivative=True, both=True)
    return _total(problem, call), out


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    out = _empty_gradient(problem)
    scale = float(eager.scale_of(problem))
    if problem.reduce:
        # Multiplied last, as the gradient of the one pass is: the same bits.
        _run(problem, scale, out, derivative=True, after=float(upstream), statistics=statistics)
    else:
        _run(problem, scale, out, upstream, derivative=True, statistics=statistics)
    return out
