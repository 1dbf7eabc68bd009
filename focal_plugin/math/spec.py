"""What one variant is, whatever computes it."""

from __future__ import annotations
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """A public argument of a variant: its default, its range and its sentence of documentation, written nowhere else.

    Attributes:
        default: REQUIRED where the caller has to give it. A bool makes it a flag.
        doc: what it is, a sentence without its range and default.
        low, high: the range of a number; ``above``: low itself is not in it.
        whole: it is a whole number.
        vector: a sequence or tensor of one number per class is allowed.
        sequence: it is a sequence of one number per class, kept as a tuple.
        optional: None or a negative number means none.
        choices: the strings that are allowed, for an argument that is no number.
    """

    name: str
    default: Any
    doc: str
    low: float = 0.0
    high: float = math.inf
    above: bool = False
    whole: bool = False
    vector: bool = False
    sequence: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether a number may be given."""
        return not (self.sequence or self.choices or isinstance(self.default, bool))

    @property
    def range(self) -> str:
        """The range in words."""
        if self.choices:
            return ' or '.join(map(repr, self.choices))
        if isinstance(self.default, bool):
            return 'True or False'
        if self.high == math.inf:
            return f'above {self.low:g}' if self.above else f'at least {self.low:g}'
        return f'in {"(" if self.above else "["}{self.low:g}, {self.high:g}]'


GAMMA = Parameter('gamma', 2.0, 'Focusing exponent', vector=True)
ALPHA = Parameter('alpha', 0.25, 'Weight of the positives', high=1, vector=True, optional=True)
DETACH_WEIGHT = Parameter('detach_weight', False, 'Whether the modulating factor of negatives gets no gradient')


@dataclass(frozen=True)
class Spec:
    """A variant of the focal loss.

    The point function takes what one logit gives (x, p, q = 1 - p, log p, log q), the target y, whether the element is
    a positive, and the packed parameters. Three twins of it exist: ``value`` in plain PyTorch, ``value_and_grad`` in
    Triton and ``<name>.h`` in C++. All derivatives are with respect to the logit.

    Attributes:
        name: the name at every layer: math/<name>.py, math/<name>.h, losses/<name>.py, kernel reports, benchmarks.
        title: the loss and its paper, a noun phrase.
        paper: arXiv number of the source.
        formula: the loss of one logit, for documentation.
        parameters: the public arguments.
        pack: public arguments -> the numbers (or tensors of C) that the point functions take, at most 6; the first is
            the exponent that the kernels specialise at 0, 1, 2 and 4.
        value: eager point function, differentiable.
        value_and_grad: source of the Triton point function; compiled at its first use.
        family: what surrounds the point function: a value per logit ('elementwise'), or a softmax over a row ('rowwise').
        form: the targets that heads hand it most: 'labels', 'scored' (labels with a quality each) or 'dense' values.
        scored: (labels, scores) are taken as a target.
        per_row: 'mean' divides by the rows instead of the elements, and 'none' sums each row.
        probabilities: the argument that says whether pred holds probabilities instead of logits, or None.
        probability_epsilon: added to a probability inside logarithms; 0: logarithms stop at -100 instead.
        statistics: the backward can sum the gradients of positives and negatives by class.
        factors: which of the packed parameters multiply the loss of positives or of negatives.
        prepare: rewrites (pred, target, score, weight, ignore_index, **arguments) -> (target, score, weight) before the
            kernels, on their canonical forms; or None.
        function: name of the public function; <name>_loss by default.
        defaults: the public arguments and their defaults.
    """

    name: str
    title: str
    paper: str
    formula: str
    parameters: tuple[Parameter, ...]
    pack: Callable[..., tuple]
    value: Callable
    value_and_grad: Callable
    family: Literal['elementwise', 'rowwise'] = 'elementwise'
    form: Literal['labels', 'scored', 'dense'] = 'labels'
    scored: bool = False
    per_row: bool = False
    probabilities: Literal['activated', 'from_logits'] | None = None
    probability_epsilon: float = 0.0
    statistics: bool = False
    factors: tuple[int, ...] = ()
    prepare: Callable | None = None
    function: str = ''
    defaults: Mapping[str, Any] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.function:
            object.__setattr__(self, 'function', f'{self.name}_loss')
        object.__setattr__(self, 'defaults', {p.name: p.default for p in self.parameters})
