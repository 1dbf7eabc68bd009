"""The torch backend: closed forms in plain PyTorch, any device and dtype, a chunk at a time."""

import math

import torch
from torch import Tensor

from focal_plugin.kernels.checks import check_channels, check_labels, check_probabilities
from focal_plugin.kernels.problem import Problem

# Elements a chunk: the temporaries of a CPU chunk stay in the second-level cache.
CHUNK = {'cpu': 2**17}
GPU_CHUNK = 2**24
EPS = torch.finfo(torch.float32).eps


class Terms(torch.autograd.Function):
    """x, p, q = 1 - p, log p, log q of a logit or a probability, with exact derivatives where the formulas saturate.

    Autograd through abs() or max() gives half or no gradient at a logit of 0; these derivatives hold everywhere. For a
    probability they follow torch's binary_cross_entropy (logarithms stop at -100, p (1 - p) at 1e-12) or, given an
    epsilon, mmdet's Gaussian focal loss, which adds it inside the logarithms.
    """

    @staticmethod
    def forward(ctx, pred: Tensor, activated: bool, epsilon: float) -> tuple[Tensor, ...]:
        if activated and epsilon:
            p, q = pred.clone(), 1 - pred
            log_p = (p + epsilon).log()
            log_q = torch.where(p < 0.5, torch.log1p(-p), (q + epsilon).log())
            x = log_p - log_q
        elif activated:
            p, q = pred.clone(), 1 - pred
            log_p, log_q = p.log().clamp(min=-100), torch.log1p(-p).clamp(min=-100)
            x = log_p - log_q
        else:
            x, p, q = pred.clone(), torch.sigmoid(pred), torch.sigmoid(-pred)
            log1p = torch.log1p(pred.abs().neg_().exp_())
            log_p, log_q = pred.clamp(max=0) - log1p, (-pred).clamp(max=0) - log1p
        ctx.activated, ctx.epsilon = activated, epsilon
        ctx.save_for_backward(p, q)
        return x, p, q, log_p, log_q

    @staticmethod
    def backward(ctx, gx, gp, gq, glog_p, glog_q):
        p, q = ctx.saved_tensors
        variance = p * q
        if ctx.activated and ctx.epsilon:
            grad = gp - gq + glog_p / (p + ctx.epsilon) - glog_q / (q + ctx.epsilon)
            return grad, None, None
        grad = gx + (gp - gq) * variance + glog_p * q - glog_q * p
        return (grad / variance.clamp(min=1e-12) if ctx.activated else grad), None, None


def point(problem: Problem, pred: Tensor, target: Tensor, score: Tensor | None, weight: Tensor | None) -> Tensor:
    """The weighted loss of each element, differentiable in pred, target, score and weight."""
    dtype = torch.promote_types(pred.dtype, torch.float32)
    ignored = wrong = None
    if problem.has_labels:
        classes = pred.size(-1)
        label = target.unsqueeze(-1)
        is_positive = label == torch.arange(classes, device=pred.device)
        y = is_positive if score is None else is_positive * score.unsqueeze(-1).to(dtype)
        if problem.ignore_index is not None:
            ignored = label == problem.ignore_index
            pred = torch.where(ignored, 0, pred)  # a NaN there would get into the gradient
        if pred.device.type != 'cpu' or torch.compiler.is_compiling():
            wrong = (label < 0) | (label > classes)  # check_labels did not look
            wrong = wrong if ignored is None else wrong & ~ignored
    else:
        y = target.to(dtype)
        is_positive = y > 0
    if problem.table is None:
        # The exponent stays a number, to be recognised; the others take the dtype of the arithmetic.
        exponent, *others = problem.parameters
        parameters = [exponent, *(torch.full((), v, dtype=dtype, device=pred.device) for v in others)]
    else:
        parameters = problem.table.to(dtype).unbind()
    epsilon = problem.spec.probability_epsilon
    terms = Terms.apply(pred.to(dtype), problem.activated, epsilon)
    value = problem.spec.value(*terms, y, is_positive, *parameters)
    if weight is not None:
        value = value * weight.to(dtype)
    if wrong is not None:
        value = value * torch.where(wrong, float('nan'), 1.0)
    return value if ignored is None else torch.where(ignored, 0.0, value)


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
    """(pred, target, score, weight, *tensors), a chunk at a time."""
    rows = problem.pred.dim() - 1
    limit = CHUNK.get(problem.pred.device.type, GPU_CHUNK)
    # Labels must stay whole rows: is_positive compares them with every class.
    whole = problem.has_labels or problem.table is not None or problem.output == 'row' or whole_rows
    shape = problem.pred.shape[:-1] if whole else problem.pred.shape
    limit = max(1, limit // max(1, problem.pred.size(-1))) if len(shape) == rows else limit
    for index in _chunks(shape, limit):
        yield tuple(
            None if t is None else t[index]
            for t in (problem.pred, problem.target, problem.score, problem.weight, *tensors)
        )


def scale_of(problem: Problem) -> Tensor | float:
    if problem.avg_factor is None:
        return problem.scale
    return problem.scale / (problem.avg_factor.to(torch.promote_types(problem.pred.dtype, torch.float32)) + EPS)


def forward(problem: Problem) -> Tensor:
    check_labels(problem)
    pred, scale = problem.pred, scale_of(problem)
    if problem.reduce:
        total = pred.new_zeros((), dtype=torch.promote_types(pred.dtype, torch.float32))
        for piece in pieces(problem):
            total += point(problem, *piece).sum()
        return total * scale
    by_row = problem.output == 'row'
    out = pred.new_empty(pred.shape[:-1]) if by_row else torch.empty_like(pred)
    for *piece, to in pieces(problem, out):
        values = point(problem, *piece)
        to.copy_((values.sum(-1) if by_row else values) * scale)
    return out


def backward(problem: Problem, upstream: Tensor, statistics: Tensor | None = None) -> Tensor:
    scale = scale_of(problem)
    out = torch.empty_like(problem.pred)
    if problem.reduce:
        by_upstream, upstream = upstream, None
    else:
        by_upstream = 1.0
    # Far beyond where every derivative is constant; an infinite logit would meet a 0.
    finite = torch.finfo(problem.pred.dtype).max
    largest = min(1e30, finite)
    for pred, *piece, to, grad in pieces(problem, out, upstream, whole_rows=statistics is not None):
        with torch.enable_grad():
            leaf = pred.detach() if problem.activated else pred.detach().clamp(-largest, largest)
            leaf = leaf.to(torch.promote_types(pred.dtype, torch.float32)).requires_grad_()
            (derivative,) = torch.autograd.grad(point(problem, leaf, *piece).sum(), leaf)
        derivative = derivative * scale
        if statistics is not None:
            _gather(statistics, problem, derivative, piece[0])
        derivative = derivative * (by_upstream if grad is None else grad)
        # The derivative by a probability reaches 1e12 at the ends.
        to.copy_(derivative.clamp(-finite, finite) if problem.activated else derivative)
    return out


def _gather(statistics: Tensor, problem: Problem, derivative: Tensor, target: Tensor) -> None:
    """Adds the absolute derivatives of positives and of negatives, class by class."""
    if problem.has_labels:
        is_positive = target.unsqueeze(-1) == torch.arange(problem.pred.size(-1), device=target.device)
    else:
        is_positive = target > 0
    size, classes = derivative.abs().double(), derivative.size(-1)
    for row, part in enumerate((is_positive, ~is_positive)):
        statistics[row] += (size * part).reshape(-1, classes).sum(0)


def of_own_channel(problem: Problem) -> Problem:
    """The problem with each row's own channel picked, a copy; autograd knows where it comes from."""
    if problem.channel is None:
        return problem
    check_channels(problem)
    pred, channel = problem.pred, problem.channel
    inside = (channel >= 0) & (channel < pred.size(1))
    own = pred[torch.arange(pred.size(0), device=pred.device), torch.where(inside, channel, 0)]
    if pred.device.type != 'cpu' or torch.compiler.is_compiling():
        own = torch.where(inside.unsqueeze(-1), own, float('nan'))  # check_channels did not look
    return problem._replace(pred=own, channel=None)


def compose(problem: Problem) -> Tensor:
    """The loss as plain autograd operations: differentiable in target, weight and avg_factor too, and twice."""
    problem = of_own_channel(problem)
    if not torch.compiler.is_compiling():  # there a wrong label or probability gives NaN, as on a GPU
        check_labels(problem)
        check_probabilities(problem)
    values = point(problem, problem.pred, problem.target, problem.score, problem.weight)
    if problem.reduce:
        return values.sum() * scale_of(problem)
    values = values.sum(-1) if problem.output == 'row' else values
    return (values * scale_of(problem)).to(problem.pred.dtype)
