"""The arguments that every backend takes."""

from typing import NamedTuple

from torch import Tensor

from focal_plugin.math import Spec


class Problem(NamedTuple):
    """One elementwise loss, checked and in its canonical form.

    Attributes:
        pred: logits (probabilities where ``activated``), any strides; the classes are the last dimension.
        target: int64 labels of shape pred.shape[:-1], background C; or dense values in [0, 1] of pred's shape.
        score: y of each label's element, of the labels' shape, or None: 1.
        weight: broadcast to pred's shape, or None.
        table: parameters that are vectors over the classes: float32 (parameters, C), or None.
        avg_factor: what the sum is divided by, on pred's device, shape () or (1,), or None.
        channel: int64 (n,): of pred (n, channels, P) only this channel of each row is read, and the other operands have
            its shape (n, P); or None.
        spec: the variant.
        parameters: the packed parameters; beside a table its factors, as far as they are numbers, or 0 where they are not.
        activated: pred holds probabilities.
        ignore_index: rows with this label give no loss and no gradient, or None.
        scale: a factor of every value.
        output: one value an 'element', the sum of each 'row', or the 'sum' of all.
    """

    pred: Tensor
    target: Tensor
    score: Tensor | None
    weight: Tensor | None
    table: Tensor | None
    avg_factor: Tensor | None
    channel: Tensor | None
    spec: Spec
    parameters: list[float]
    activated: bool
    ignore_index: int | None
    scale: float
    output: str

    def own(self, tensor: Tensor) -> Tensor:
        """Of a tensor of pred's shape what the loss reads: all; or the first channel, for the shape and strides."""
        return tensor if self.channel is None else tensor.select(1, 0)

    @property
    def has_labels(self) -> bool:
        return self.target.dim() < self.pred.dim() - (self.channel is not None)

    @property
    def reduce(self) -> bool:
        return self.output == 'sum'

    @property
    def exponent(self) -> int:
        """The first parameter where the kernels are specialised at it, else -1."""
        first = self.parameters[0] if self.table is None else -1
        return int(first) if first in (0.0, 1.0, 2.0, 4.0) else -1

    @property
    def vanishes(self) -> bool:
        """Whether a factor of the loss may be 0, which silences the infinite loss of an infinite logit."""
        factors = self.parameters if self.table is not None else [self.parameters[k] for k in self.spec.factors]
        return 0 in factors

    def per_element(self, upstream: Tensor) -> Tensor:
        """An upstream gradient of the output, as a view of pred's shape where it is one a row."""
        return upstream.unsqueeze(-1).expand(self.own(self.pred).shape) if self.output == 'row' else upstream
