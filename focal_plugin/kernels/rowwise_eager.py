"""The row-wise skeleton of the torch backend: plain PyTorch, any device and dtype, a chunk of rows at a time."""

import torch
from torch import Tensor

from focal_plugin.kernels.checks import check_labels
from focal_plugin.kernels.eager import Terms, pieces, scale_of
from focal_plugin.kernels.problem import Problem

LARGEST = 1e30  # margins: far beyond where every derivative is constant; an infinite one would meet a 0


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
    share = torch.where(total == 0, 0, power / total)  # there are no others, or all are -inf
    return (near - (total.log() - lost)).squeeze(-1), share


class _Margin(torch.autograd.Function):
    """_margin, differentiable as often as one likes: share is an output so that autograd knows where it comes from."""

    @staticmethod
    def forward(ctx, pred: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        margin, share = _margin(pred, own)
        ctx.save_for_backward(own, share)
        return margin, share

    @staticmethod
    def backward(ctx, by_margin: Tensor, by_share: Tensor):
        own, share = ctx.saved_tensors
        weighted = by_share * share
        through_share = weighted - share * weighted.sum(-1, keepdim=True)
        return torch.where(own, 1, -share) * by_margin.unsqueeze(-1) + through_share, None


def _logits(problem: Problem, pred: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """(logits in the dtype of the arithmetic, which of them are the labels')."""
    label = label.unsqueeze(-1)
    if problem.ignore_index is not None:
        pred = torch.where(label == problem.ignore_index, 0, pred)  # a NaN there would get into the gradient
    own = label == torch.arange(pred.size(-1), device=pred.device)
    return pred.to(torch.promote_types(pred.dtype, torch.float32)), own


def _values(problem: Problem, margin: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted loss of each row."""
    dtype, classes = margin.dtype, problem.pred.size(-1)
    if problem.table is None:
        # The exponent stays a number, to be recognised; the others take the dtype of the arithmetic.
        exponent, *others = problem.parameters
        parameters = [exponent, *(torch.full((), v, dtype=dtype, device=margin.device) for v in others)]
    else:
        parameters = problem.table.to(dtype)[:, label.clamp(0, classes - 1)].unbind()
    positive = torch.ones((), dtype=torch.bool, device=margin.device)
    value = problem.spec.value(*Terms.apply(margin, False, 0.0), positive, positive, *parameters)
    if weight is not None:
        value = value * weight.select(-1, 0).to(dtype)
    # On the CPU check_labels has looked; the product makes the gradient NaN too.
    wrong = (label < 0) | (label >= classes)
    if problem.ignore_index is None:
        return value * torch.where(wrong, torch.nan, 1.0)
    ignored = label == problem.ignore_index
    return torch.where(ignored, 0, value * torch.where(wrong & ~ignored, torch.nan, 1.0))


def forward(problem: Problem) -> Tensor:
    check_labels(problem)
    pred, scale = problem.pred, scale_of(problem)
    out = pred.new_empty(pred.shape[:-1]) if problem.output == 'row' else None
    total = pred.new_zeros((), dtype=torch.promote_types(pred.dtype, torch.float32))
    for pred, label, _, weight, to in pieces(problem, out):
        margin, _ = _margin(*_logits(problem, pred, label))
        values = _values(problem, margin, label, weight)
        if to is None:
            total += values.sum()
        else:
            to.copy_(values * scale)
    return total * scale if out is None else out


def backward(problem: Problem, upstream: Tensor) -> Tensor:
    out, scale = torch.empty_like(problem.pred), scale_of(problem)
    by_row = None if problem.reduce else upstream.select(-1, 0)
    for pred, label, _, weight, to, grad in pieces(problem, out, by_row):
        logits, own = _logits(problem, pred, label)
        margin, share = _margin(logits, own)
        with torch.enable_grad():
            leaf = margin.clamp(-LARGEST, LARGEST).requires_grad_()
            (slope,) = torch.autograd.grad(_values(problem, leaf, label, weight).sum(), leaf)
        slope = (slope * scale * (upstream if grad is None else grad)).view_as(slope)
        to.copy_(torch.where(own, 1, -share) * slope.unsqueeze(-1))
    return out


def compose(problem: Problem) -> Tensor:
    """The loss as plain autograd operations: differentiable in weight, parameters and avg_factor too, and twice."""
    if not torch.compiler.is_compiling():  # there a wrong label gives NaN, as on a GPU
        check_labels(problem)
    margin, _ = _Margin.apply(*_logits(problem, problem.pred, problem.target))
    values = _values(problem, margin, problem.target, problem.weight)
    if problem.reduce:
        return values.sum() * scale_of(problem)
    return (values * scale_of(problem)).to(problem.pred.dtype)
