"""A convolution to class logits and the loss of these, a chunk of output channels at a time.

Of each chunk the logits are computed, then the loss and its gradient (on a CPU over the logits, on a GPU beside them),
then what that adds to the gradients of the weight, the bias and the features; then the chunk is freed. Nothing is computed
twice, and the logits are never held. Each level has chunks of its own, of the more channels the fewer places it has, since a
small level's chunk costs a GPU's host as much time as a large one's.

float16 alone is computed again in the backward: without the loss scale, which comes with the upstream gradient, the
gradients of easy negatives would underflow to 0.
"""

from __future__ import annotations
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from focal_plugin.compatibility import without_autocast
from focal_plugin.kernels import checks
from focal_plugin.kernels.problem import Problem
from focal_plugin.ops import library
from focal_plugin.ops.chunks import Chunk, Labels, chunks
from focal_plugin.tensors import of_sums, require_grad
from focal_plugin.tracing import is_batch, is_transformed


class Convolution(NamedTuple):
    """What makes logits (B, channels, H, W) of features (B, F, H', W')."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def logits(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.conv2d(x, weight, bias, *self)

    def gradients(self, grad: Tensor, x: Tensor, weight: Tensor, needed: list[bool]) -> Sequence[Tensor | None]:
        """By the features, the weight and the bias, those that are needed."""
        return torch.ops.aten.convolution_backward(
            grad, x, weight, [weight.size(0)], *self, False, [0, 0], 1, needed
        )  # fmt: skip


class Linear:
    """What makes logits (B, channels, T, 1) of features (B, F, T, 1), by weights of (channels, F, 1, 1).

    It is no convolution: to a GPU's convolutions PyTorch allows TF32, which it keeps from nn.Linear, unless told otherwise.
    """

    def logits(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _as_map(torch.nn.functional.linear(_as_rows(x), weight[..., 0, 0], bias))

    def gradients(self, grad: Tensor, x: Tensor, weight: Tensor, needed: list[bool]) -> Sequence[Tensor | None]:
        """By the features, the weight and the bias, those that are needed."""
        rows, (by_features, by_weight, by_bias) = _as_rows(grad), needed
        return (
            _as_map(rows @ weight[..., 0, 0]) if by_features else None,
            (rows.flatten(0, 1).t() @ _as_rows(x).flatten(0, 1))[..., None, None] if by_weight else None,
            rows.sum((0, 1)) if by_bias else None,
        )


def _as_rows(x: Tensor) -> Tensor:
    """(B, channels, T, 1) as (B, T, channels)."""
    return x[..., 0].transpose(1, 2)


def _as_map(rows: Tensor) -> Tensor:
    return rows.transpose(1, 2).unsqueeze(-1)


class Level(NamedTuple):
    """A level's features, by index, and what is to be computed of its logits.

    The problem's pred, (B, H, W, A, C), has the shape, dtype and device of the logits and none of their memory.
    """

    features: int
    problem: Problem


class Owner(NamedTuple):
    """Whose loss is cut, and what to write where it must not be, in an error."""

    name: str
    remedy: str


class Cut:
    """What is to be computed, beside the tensors that get gradients.

    Args:
        layer: what makes the logits.
        levels: the levels; at least one.
        size: bytes that a chunk may take: its logits twice, or its weight four times, whichever is more.
        statistics: as for ops.autograd.loss_of.
        owner: for errors.
    """

    def __init__(
        self, layer: Convolution | Linear, levels: Sequence[Level], size: int, statistics: Tensor | None, owner: Owner
    ) -> None:
        self.layer, self.levels, self.size, self.statistics, self.owner = layer, levels, size, statistics, owner
        problem = max((level.problem for level in levels), key=lambda problem: problem.pred.numel())
        self.pred = problem.pred
        self.keeps = self.pred.dtype != torch.float16
        self.in_one_pass = self.keeps and library.has_one_pass(problem, statistics is not None)
        self.in_place = self.in_one_pass and library.writes_in_place(problem)

    def chunks_of(self, level: Level, weight: Tensor) -> list[Chunk]:
        """What is computed at once of a level."""
        pred = level.problem.pred
        # Logits and their gradient; where that takes their place, a CPU's convolution has held them in a layout of its own.
        # Of a small level the weight is larger: it is held so, and what its gradient gains, and both in such layouts.
        held = max(2 * pred[..., 0, 0].numel(), 4 * weight[0].numel()) * pred.element_size()  # by a channel
        anchors, classes = pred.shape[-2:]
        return chunks(anchors, classes, self.size // max(held, 1))

    def run(
        self, weight: Tensor, bias: Tensor | None, features: Sequence[Tensor], needed: Sequence[bool],
        upstream: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor | None], Tensor | None]:  # fmt: skip
        """(the parts of the sum, the gradients that are needed, the statistics).

        Args:
            needed: which of (weight, bias, *features) get a gradient.
            upstream: the upstream gradient under which only gradients are computed; None: 1, and the sum is wanted too.
        """
        tensors = (weight, bias, *features)
        found = [None if t is None or not needs else _zeros(t) for t, needs in zip(tensors, needed)]
        gathers = self.statistics is not None and any(needed)
        gathered = self.pred.new_zeros((2, self.pred.size(-1)), dtype=of_sums(self.pred.device)) if gathers else None
        values = []
        with without_autocast(weight.device):
            for level in self.levels:
                x, labels = features[level.features].to(self.pred.dtype), Labels(level.problem)
                for chunk in self.chunks_of(level, weight):
                    kernel = weight[chunk.channels].to(self.pred.dtype)
                    offset = None if bias is None else bias[chunk.channels].to(self.pred.dtype)
                    problem = chunk.of(level.problem, labels, self.layer.logits(x, kernel, offset))
                    if not any(needed):
                        values.append(library.forward(problem))
                        continue
                    value, grad, statistics = self._differentiated(problem, upstream)
                    del problem  # and with it the logits
                    values.append(value)
                    if gathered is not None:
                        gathered[:, chunk.classes] += statistics
                    self._add(found, level.features, chunk, grad, x, kernel)
                    del grad
        return values, [g if g is None or t is None else g.to(t.dtype) for g, t in zip(found, tensors)], gathered

    def _differentiated(self, problem: Problem, upstream: Tensor | None) -> tuple:
        """(the sum, the gradient by the logits (B, channels, H, W), the statistics)."""
        value = statistics = None
        if self.in_one_pass:
            statistics = None if self.statistics is None else library.new_statistics(problem)
            value, grad = library.forward_and_backward(problem, self.in_place, statistics)
        else:
            if upstream is None:
                value = library.forward(problem)
                upstream = torch.ones_like(value)
            grad, statistics = library.backward(problem, upstream, self.statistics is not None)
        return value, grad.permute(0, 3, 4, 1, 2).flatten(1, 2), statistics

    def _add(self, found: list, level: int, chunk: Chunk, grad: Tensor, x: Tensor, kernel: Tensor) -> None:
        """Adds to the gradients what a chunk of a level gives."""
        weight, bias, features = found[0], found[1], found[2 + level]
        needed = [features is not None, weight is not None, bias is not None]
        by_features, by_weight, by_bias = self.layer.gradients(grad, x, kernel, needed)
        if features is not None:
            features += by_features
        if weight is not None:
            weight[chunk.channels].add_(by_weight)
        if bias is not None:
            bias[chunk.channels].add_(by_bias)


def _zeros(tensor: Tensor) -> Tensor:
    """Where a gradient is added up, in float32 at least."""
    return torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, cut: Cut, weight, bias, *features):
        tensors = (weight, bias, *features)
        needed = ctx.needs_input_grad[1:] if cut.keeps else [False] * len(tensors)
        values, found, ctx.gathered = cut.run(weight, bias, features, needed, None)
        ctx.save_for_backward(*found if cut.keeps else tensors)
        ctx.cut, ctx.is_spent = cut, False
        return _sum(values)

    @staticmethod
    def backward(ctx, upstream):
        _refuse_another(ctx, upstream)
        ctx.is_spent, cut = True, ctx.cut
        if cut.keeps:
            found, gathered = _scaled(ctx.saved_tensors, upstream), ctx.gathered
        else:
            weight, bias, *features = ctx.saved_tensors
            _, found, gathered = cut.run(weight, bias, features, ctx.needs_input_grad[1:], upstream)
        if gathered is not None:
            cut.statistics += gathered
        return (None, *found)


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum(0, dtype=of_sums(values[0].device)).to(values[0].dtype)


def _scaled(kept: Sequence[Tensor | None], upstream: Tensor) -> list[Tensor | None]:
    """The kept gradients, given away, under an upstream gradient."""
    if upstream.is_cpu and upstream.item() == 1:  # on a GPU nobody looks
        return list(kept)
    return [None if grad is None else grad.mul_(upstream) for grad in kept]


def _refuse_another(ctx, upstream: Tensor) -> None:
    owner = ctx.cut.owner
    if torch.is_grad_enabled() or is_batch(upstream):
        raise RuntimeError(
            f'the loss of {owner.name} holds no logits to differentiate twice, or by a batch of gradients: leave '
            f'create_graph=True and is_grads_batched=True out, or {owner.remedy}'
        )
    if ctx.is_spent:
        raise RuntimeError(
            f'a second backward through the loss of {owner.name}, whose first has given its gradients away: add the losses '
            f'up and call backward once, or {owner.remedy}'
        )


def total_of(cut: Cut, weight: Tensor, bias: Tensor | None, features: Sequence[Tensor]) -> Tensor:
    """The sum of the levels' losses, shape () or (1,); one scalar, so that one upstream gradient is that of every level.

    Args:
        cut: what is computed.
        weight: of the convolution, (A * C, F, kernel height, kernel width), the classes of an anchor side by side.
        bias: (A * C,), or None.
        features: of each level, (B, F, H, W).

    Raises:
        RuntimeError: a transform of torch.func sees through the tensors, or the backward is asked for more than gradients.
        ValueError: dense targets, which would be as large as the logits; a target, a weight, a divisor or numbers per class
            want a gradient; a label that no class has (on a GPU: NaN), or a score outside [0, 1].
    """
    if is_transformed():
        raise RuntimeError(
            f'the loss of {cut.owner.name} is nothing for torch.func or torch.jit.trace: {cut.owner.remedy}'
        )
    for _, problem in cut.levels:
        _check(problem, cut.owner)
    tensors = (weight, bias, *features)
    if torch.is_grad_enabled() and require_grad(tensors):
        return _Loss.apply(cut, *tensors)
    return _sum(cut.run(weight, bias, features, [False] * len(tensors), None)[0])


def _check(problem: Problem, owner: Owner) -> None:
    """Refuses what a cut can't compute; labels are looked at once for all chunks."""
    if not problem.has_labels:
        raise ValueError(
            f'{owner.name} takes labels, or (labels, scores), got a target of shape {tuple(problem.target.shape)}, as large '
            f'as the logits that it never holds: {owner.remedy}'
        )
    operands = (problem.target, problem.score, problem.weight, problem.avg_factor, problem.per_class_parameters)
    if require_grad(operands):
        raise ValueError(
            f'{owner.name} gives no gradients of targets, weights, avg_factor or numbers per class: detach them'
        )
    checks.check_labels(problem)
