"""The torch backend's row-wise family: plain PyTorch, any device and dtype, a chunk of rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from focal_plugin.compatibility import is_compiling
from focal_plugin.kernels.checks import check_labels
from focal_plugin.kernels.problem import Problem
from focal_plugin.kernels.torch.elementwise import composed, finite_logits, parameters_of, pieces, scaled, total_of
from focal_plugin.math.derivatives import limit, terms_of_logit
from focal_plugin.tensors import of_sums, widest
from focal_plugin.tracing import recording_apart


def _margin(pred: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """(margin of each row, share of each other logit in the sum of their exponentials); own marks the labels' logits."""
    finite = torch.finfo(pred.dtype).max
    others = pred.masked_fill(own, -torch.inf)
    top = others.amax(-1, keepdim=True)
    power = (others - top.clamp(-finite, finite)).clamp(max=0).exp()  # an infinite logit would be taken from itself
    total = power.sum(-1, keepdim=True)
    # What x_y - top loses by rounding is put back: the error of a margin is multiplied by gamma + 1.
    mine = torch.where(own, pred, 0).sum(-1, keepdim=True)
    near = mine - top
    back = near - mine
    lost = torch.where(near.isfinite(), (mine - (near - back)) - (top + back), 0)
    share = power.div_(torch.where(total == 0, 1, total))  # there are no others, or all are -inf
    return (near - (total.log() - lost)).squeeze(-1), share


class _Margin(torch.autograd.Function):
    """_margin, differentiable as often as one likes: share is an output so that autograd knows where it comes from."""

    generate_vmap_rule = True

    @staticmethod
    def forward(pred: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        return _margin(pred, own)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1], output[1])

    @staticmethod
    def backward(ctx, by_margin: Tensor, by_share: Tensor):
        own, share = ctx.saved_tensors
        weighted = by_share * share
        through_share = weighted - share * weighted.sum(-1, keepdim=True)
        return torch.where(own, 1, -share) * by_margin.unsqueeze(-1) + through_share, None


class _MarginInBothModes(_Margin):
    """A class of its own, because torch.compile traces none that has a jvp."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        _Margin.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[1], output[1])

    @staticmethod
    def jvp(ctx, tangent: Tensor, _):
        own, share = ctx.saved_tensors
        mean = (share * tangent).sum(-1, keepdim=True)
        return torch.where(own, tangent, 0).sum(-1) - mean.squeeze(-1), share * (tangent - mean)


def _logits(problem: Problem, pred: Tensor, label: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(logits in the dtype of the arithmetic, which of them are the labels')."""
    label = label.unsqueeze(-1)
    if problem.ignore_index is not None:
        pred = torch.where(label == problem.ignore_index, 0, pred)  # a NaN there would get into the gradient
    own = label == torch.arange(pred.size(-1), device=pred.device)
    return pred.to(dtype), own


def _values(problem: Problem, margin: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted loss of each row."""
    x, is_infinite = finite_logits(margin, margin.dtype)
    dtype, classes = x.dtype, problem.pred.size(-1)
    parameters = parameters_of(problem, dtype)
    if problem.per_class_parameters is not None:
        parameters = [each[label.clamp(0, classes - 1)] for each in parameters]
    positive = torch.ones((), dtype=torch.bool, device=margin.device)
    value = problem.spec.value(x, *terms_of_logit(x), positive, positive, *parameters)
    ignored = None if problem.ignore_index is None else label == problem.ignore_index
    if weight is not None:
        weight = weight.select(-1, 0).to(dtype)
        value = value * (weight if ignored is None else torch.where(ignored, 0, weight))
    if is_infinite is not None:
        value = limit(value, is_infinite)
    # On the CPU check_labels has looked; the product makes the gradient NaN too.
    wrong = (label < 0) | (label >= classes)
    if ignored is None:
        return value * torch.where(wrong, torch.nan, 1.0).to(dtype)
    return torch.where(ignored, 0, value * torch.where(wrong & ~ignored, torch.nan, 1.0).to(dtype))


def forward(problem: Problem) -> Tensor:
    check_labels(problem)
    pred, scale, dtype = problem.pred, problem.total_scale, problem.arithmetic
    out = pred.new_empty(pred.shape[:-1]) if problem.output == 'row' else None
    total = pred.new_zeros((), dtype=of_sums(pred.device))
    for pred, label, _, weight, to in pieces(problem, out):
        margin, _ = _margin(*_logits(problem, pred, label, dtype))
        values = _values(problem, margin, label, weight)
        if to is None:
            total += total_of(values)
        else:
            to.copy_(scaled(values, scale))
    return scaled(total.to(dtype), scale) if out is None else out


def backward(problem: Problem, upstream: Tensor, statistics: None = None) -> Tensor:
    out, scale, dtype = torch.empty_like(problem.pred), problem.total_scale, problem.arithmetic
    by_row = None if problem.reduces else upstream.select(-1, 0)
    for pred, label, _, weight, to, grad in pieces(problem, out, by_row):
        logits, own = _logits(problem, pred, label, dtype)
        margin, share = _margin(logits, own)
        with recording_apart():
            leaf = margin.requires_grad_()
            (slope,) = torch.autograd.grad(_values(problem, leaf, label, weight).sum(), leaf)
        slope = (slope * scale * (upstream if grad is None else grad)).view_as(slope)
        if problem.ignore_index is not None:
            slope = torch.where(label == problem.ignore_index, 0, slope)
        to.copy_(torch.where(own, 1, -share) * slope.unsqueeze(-1))
    return out


def compose(problem: Problem) -> Tensor:
    """The loss as plain autograd operations: differentiable in every tensor, as often as one likes, under any transform."""
    check_labels(problem)
    margin_of = _Margin if is_compiling() else _MarginInBothModes
    margin, _ = margin_of.apply(*_logits(problem, problem.pred, problem.target, widest(problem.pred)))
    return composed(problem, _values(problem, margin, problem.target, problem.weight))
