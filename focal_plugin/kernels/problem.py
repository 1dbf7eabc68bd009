"""The arguments that every operator and every backend take."""

from __future__ import annotations
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from focal_plugin.math import SPECS, Spec

EPS = torch.finfo(torch.float32).eps  # added to avg_factor, as in mmdet


def divided(scale, avg_factor):
    """A scale over avg_factor, numbers or tensors."""
    return scale / (avg_factor + EPS)


class Problem(NamedTuple):
    """A loss, checked and in its canonical form. Its fields are the operators' arguments, in the order of SCHEMA.

    Attributes:
        pred: logits (probabilities where ``activated``), any strides; the classes are the last dimension.
        target: int64 labels of shape pred.shape[:-1], background C; or dense values in [0, 1] of pred's shape.
        score: y of each label's element, of the labels' shape, or None: 1.
        weight: broadcast to pred's shape, or None.
        per_class_parameters: float32 (parameters, C) where a parameter is a vector over the classes, or None.
        avg_factor: what the sum is divided by, on pred's device, shape () or (1,), or None.
        channel: int64 (n,): of pred (n, channels, P) only this channel of each row is read, and the other operands have
            its shape (n, P); or None.
        variant: the name of the spec.
        parameters: the packed parameters; beside per_class_parameters the factors among them, as far as they are numbers,
            or 0 where they are not.
        activated: pred holds probabilities.
        ignore_index: rows with this label give no loss and no gradient, or None.
        scale: a factor of every value.
        output: a value per 'element', the sum of each 'row', or the 'sum' of all.
        backend: 'triton', 'native' or 'torch'.
    """

    pred: Tensor
    target: Tensor
    score: Tensor | None
    weight: Tensor | None
    per_class_parameters: Tensor | None
    avg_factor: Tensor | None
    channel: Tensor | None
    variant: str
    parameters: list[float]
    activated: bool
    ignore_index: int | None
    scale: float
    output: str
    backend: str

    @property
    def spec(self) -> Spec:
        return SPECS[self.variant]

    def selected(self, tensor: Tensor) -> Tensor:
        """Of a tensor of pred's shape what the loss reads: all; or the first channel, for the shape and strides."""
        return tensor if self.channel is None else tensor.select(1, 0)

    @property
    def has_labels(self) -> bool:
        return self.target.dim() < self.pred.dim() - (self.channel is not None)

    @property
    def reduces(self) -> bool:
        return self.output == 'sum'

    @property
    def exponent(self) -> int:
        """The first parameter where the kernels are specialised at it, else -1."""
        first = self.parameters[0] if self.per_class_parameters is None else -1
        return int(first) if first in (0.0, 1.0, 2.0, 4.0) else -1

    @property
    def mostly_zero(self) -> bool:
        """Whether nearly all of its targets are 0: dense ones as heads hand them over, heat maps or qualities."""
        return not self.has_labels and self.spec.form == 'dense'

    @property
    def vanishes(self) -> bool:
        """Whether a factor of the loss may be 0, which silences the infinite loss of an infinite logit."""
        if self.per_class_parameters is not None:
            return 0 in self.parameters
        return any(self.parameters[k] == 0 for k in self.spec.factors)

    @property
    def arithmetic(self) -> torch.dtype:
        """The dtype of the arithmetic outside the kernels."""
        return torch.promote_types(self.pred.dtype, torch.float32)

    @property
    def total_scale(self) -> Tensor | float:
        """The scale over avg_factor."""
        return self.scale if self.avg_factor is None else divided(self.scale, self.avg_factor.to(self.arithmetic))

    def empty_sum(self) -> Tensor:
        """What a GPU writes the sum into."""
        shape = () if self.avg_factor is None else self.avg_factor.shape
        return self.pred.new_empty(shape, dtype=torch.float32)

    def per_element(self, upstream: Tensor) -> Tensor:
        """An upstream gradient of the output, as a view of pred's shape where there is one per row."""
        return upstream.unsqueeze(-1).expand(self.selected(self.pred).shape) if self.output == 'row' else upstream


TENSORS: Final = 7  # fields that are tensors, the first ones
SCALE: Final = Problem._fields.index('scale') - TENSORS  # its place among the others
SCHEMA = (
    'Tensor pred, Tensor target, Tensor? score, Tensor? weight, Tensor? per_class_parameters, Tensor? avg_factor, '
    'Tensor? channel, str variant, float[] parameters, bool activated, int? ignore_index, float scale, str output, '
    'str backend'
)


def contiguous(problem: Problem) -> Problem:
    """The same with copies of what is not contiguous, for strides that a kernel refuses."""
    tensors = {name: getattr(problem, name) for name in ('pred', 'target', 'score')}
    copies: dict[str, Any] = {name: t.contiguous() for name, t in tensors.items() if t is not None}
    weight = problem.weight
    if weight is not None and weight.stride(-1) == 0:  # one number per row, which a copy of all classes would hide
        copies['weight'] = weight[..., :1].contiguous().expand_as(weight)
    elif weight is not None:
        copies['weight'] = weight.contiguous()
    return problem._replace(**copies)
