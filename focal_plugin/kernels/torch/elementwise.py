"""The torch backend's elementwise family: closed forms in plain PyTorch, any device and dtype, a chunk at a time."""

from __future__ import annotations
import math

import torch
from torch import Tensor

from focal_plugin.compatibility import is_compiling
from focal_plugin.kernels.checks import check_channels, check_labels
from focal_plugin.kernels.problem import Problem
from focal_plugin.math.derivatives import (
    finite,
    limit,
    saturating,
    shifted_terms,
    stopped_terms,
    terms_of_logit,
    times,
)
from focal_plugin.tensors import of_sums, widest
from focal_plugin.tracing import may_look, recording_apart

# Elements a chunk: the temporaries of a CPU chunk stay in the second-level cache.
CHUNK = {'cpu': 2**17}
GPU_CHUNK = 2**24
SUM_RUN = 512  # losses that one thread adds: a chunk has too few runs of them to be shared out


def finite_logits(pred: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """(logits in the dtype of the arithmetic without infinities, which were infinite, or None: none for sure).

    On a CPU those with infinities are float64, in which even the least slope makes a large number of what grows with them.
    """
    x = pred.to(dtype)
    seen = x.detach()
    if not may_look(seen):
        return finite(x), seen.isinf()
    # The sum is faster to find than the ends, and not finite where one of them isn't.
    if seen.sum().isfinite() or all(end.isfinite() for end in torch.aminmax(seen)):
        return x, None
    return finite(pred.to(torch.float64)), seen.isinf()


def parameters_of(problem: Problem, dtype: torch.dtype) -> list:
    """The packed parameters in the dtype of the arithmetic: numbers, or vectors over the classes."""
    if problem.per_class_parameters is not None:
        return list(problem.per_class_parameters.to(dtype).unbind())
    # The exponent stays a number, to be recognised.
    exponent, *others = problem.parameters
    return [exponent, *(torch.full((), v, dtype=dtype, device=problem.pred.device) for v in others)]


def terms_of(problem: Problem, pred: Tensor, dtype: torch.dtype) -> tuple[tuple, Tensor | None]:
    """((x, p, q, log p, log q), all finite, x None of probabilities; which stand for an infinite logit's, or None)."""
    if not problem.activated:
        x, is_infinite = finite_logits(pred, dtype)
        return (x, *terms_of_logit(x)), is_infinite
    p = saturating(pred, dtype)
    q, log_p, log_q = (shifted_terms if problem.spec.probability_epsilon else stopped_terms)(p)
    return (None, p, q, log_p, log_q), None


def _ignored(problem: Problem, target: Tensor) -> Tensor | None:
    """Which rows of a chunk are left out, (..., 1); None: none for sure."""
    if not problem.has_labels or problem.ignore_index is None:
        return None
    ignored = target.unsqueeze(-1) == problem.ignore_index
    return None if may_look(ignored) and not ignored.any() else ignored


def point(
    problem: Problem, dtype: torch.dtype, pred: Tensor, target: Tensor, score: Tensor | None, weight: Tensor | None
) -> Tensor:
    """The weighted loss of each element, differentiable in pred, target, score and weight."""
    ignored = wrong = None
    if problem.has_labels:
        label = target.unsqueeze(-1)
        ignored = _ignored(problem, target)
        if ignored is not None:
            # What these rows hold must get neither into the loss nor, times 0, into a gradient.
            pred = torch.where(ignored, 0, pred)
            weight = None if weight is None else torch.where(ignored, 0, weight)
        of_class = label if ignored is None else torch.where(ignored, -1, label)
        is_positive = of_class == torch.arange(pred.size(-1), device=pred.device)
        if not may_look(pred):
            wrong = (label < 0) | (label > pred.size(-1))  # check_labels did not look
            wrong = wrong if ignored is None else wrong & ~ignored
    else:
        is_positive = ~(target <= 0)  # NaN among them: it has to reach the loss
    terms, is_infinite = terms_of(problem, pred, dtype)
    dtype = terms[1].dtype
    if not problem.has_labels:
        y = target.to(dtype)
    else:
        y = is_positive if score is None else torch.where(is_positive, score.unsqueeze(-1).to(dtype), 0)
    value = problem.spec.value(*terms, y, is_positive, *parameters_of(problem, dtype))
    if weight is not None:
        value = value * weight.to(dtype)
    if is_infinite is not None:
        value = limit(value, is_infinite)
    if wrong is not None:
        value = value * torch.where(wrong, float('nan'), 1.0).to(dtype)
    return value if ignored is None else torch.where(ignored, 0, value)


def _chunks(shape: torch.Size, limit: int):
    """Indices that cut a shape into pieces of at most `limit` elements."""
    if math.prod(shape) <= limit:
        yield ()
        return
    inner = math.prod(shape[1:])
    step = max(1, limit // inner)
    for start in range(0, shape[0], step):
        piece = slice(start, start + step)
        for rest in _chunks(shape[1:], limit) if inner > limit else [()]:
            yield piece, *rest


def pieces(problem: Problem, *tensors: Tensor | None, whole_rows: bool = False):
    """(pred, target, score, weight, *tensors), a chunk at a time; a weight that is one per row is (..., 1)."""
    rows = problem.pred.dim() - 1
    limit = CHUNK.get(problem.pred.device.type, GPU_CHUNK)
    # Labels must stay whole rows: is_positive compares them with every class.
    whole = problem.has_labels or problem.per_class_parameters is not None or problem.output == 'row' or whole_rows
    shape = problem.pred.shape[:-1] if whole else problem.pred.shape
    limit = max(1, limit // max(1, problem.pred.size(-1))) if len(shape) == rows else limit
    for index in _chunks(shape, limit):
        pred, target, score, weight, *others = (
            None if t is None else t[index]
            for t in (problem.pred, problem.target, problem.score, problem.weight, *tensors)
        )
        if weight is not None and weight.stride(-1) == 0:
            weight = weight[..., :1]
        yield pred, target, score, weight, *others


def scaled(values: Tensor, scale: Tensor | float) -> Tensor:
    """Losses times a scale, of which 0 silences infinite ones too."""
    if not isinstance(scale, Tensor):
        if scale != 0:
            return values * scale
        scale = torch.zeros((), dtype=values.dtype, device=values.device)
    scale = scale.to(values.dtype)
    # A (1,) avg_factor gives a () sum its shape.
    return times(*torch.broadcast_tensors(values, scale))


def total_of(values: Tensor) -> Tensor:
    """The sum of a chunk, in an order that does not depend on the number of threads."""
    if is_compiling():
        return values.sum()  # the order is the compiler's
    values = values.flatten()
    rest = values.numel() % SUM_RUN
    runs, last = values[: values.numel() - rest].view(-1, SUM_RUN), values[values.numel() - rest :]
    wide = of_sums(values.device)
    return runs.sum(-1).to(wide).sum() + last.sum().to(wide)


def forward(problem: Problem) -> Tensor:
    check_labels(problem)
    pred, scale, dtype = problem.pred, problem.total_scale, problem.arithmetic
    if problem.reduces:
        total = pred.new_zeros((), dtype=of_sums(pred.device))
        for piece in pieces(problem):
            total += total_of(point(problem, dtype, *piece))
        return scaled(total.to(dtype), scale)
    by_row = problem.output == 'row'
    out = pred.new_empty(pred.shape[:-1]) if by_row else torch.empty_like(pred)
    for *piece, to in pieces(problem, out):
        values = point(problem, dtype, *piece)
        to.copy_(scaled(values.sum(-1) if by_row else values, scale))
    return out


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    scale, dtype = problem.total_scale, problem.arithmetic
    out = torch.empty_like(problem.pred)
    by_upstream, of_elements = (upstream, None) if problem.reduces else (1.0, upstream)
    largest = torch.finfo(problem.pred.dtype).max
    for pred, *piece, to, grad in pieces(problem, out, of_elements, whole_rows=statistics is not None):
        with recording_apart():
            leaf = pred.detach().to(dtype).requires_grad_()
            (derivative,) = torch.autograd.grad(point(problem, dtype, leaf, *piece).sum(), leaf)
        derivative.mul_(scale)
        if statistics is not None:
            _gather(statistics, problem, derivative, piece[0])
        derivative.mul_(by_upstream if grad is None else grad)
        ignored = _ignored(problem, piece[0])
        if ignored is not None:
            derivative.masked_fill_(ignored, 0)
        # The derivative by a probability reaches 1e12 at the ends.
        to.copy_(derivative.clamp(-largest, largest) if problem.activated else derivative)
    return out


def _gather(statistics: Tensor, problem: Problem, derivative: Tensor, target: Tensor) -> None:
    """Adds the absolute derivatives of positives and of negatives, class by class."""
    if problem.has_labels:
        is_positive = target.unsqueeze(-1) == torch.arange(problem.pred.size(-1), device=target.device)
    else:
        is_positive = ~(target <= 0)
    rows, classes = math.prod(derivative.shape[:-1]), derivative.size(-1)
    size = derivative.abs().to(statistics.dtype)
    for row, part in enumerate((is_positive, ~is_positive)):
        statistics[row] += torch.where(part, size, 0).reshape(rows, classes).sum(0)


def of_selected_channel(problem: Problem) -> Problem:
    """The problem with each row's own channel picked, a copy; autograd knows where it comes from."""
    if problem.channel is None:
        return problem
    check_channels(problem)
    pred, channel = problem.pred, problem.channel
    inside = (channel >= 0) & (channel < pred.size(1))
    own = pred[torch.arange(pred.size(0), device=pred.device), torch.where(inside, channel, 0)]
    if not may_look(pred):
        own = torch.where(inside.unsqueeze(-1), own, float('nan'))  # check_channels did not look
    return problem._replace(pred=own, channel=None)


def compose(problem: Problem) -> Tensor:
    """The loss as plain autograd operations: differentiable in every tensor, as often as one likes, under any transform."""
    problem = of_selected_channel(problem)
    check_labels(problem)
    values = point(problem, widest(problem.pred), problem.pred, problem.target, problem.score, problem.weight)
    return composed(problem, values.sum(-1) if problem.output == 'row' else values)


def composed(problem: Problem, values: Tensor) -> Tensor:
    """The reduction and the scale of composed losses, one per element or row."""
    if problem.reduces:
        return scaled(total_of(values), problem.total_scale).to(problem.arithmetic)
    return scaled(values, problem.total_scale).to(problem.pred.dtype)
