"""What the tests are told about a loss. Each module beside this one tells them about one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.oracle.points import Point

THE_DEFAULTS = 'the defaults'

# What is tried of arguments that many losses have; the first is the default.
EXPONENTS = (0, 0.5, 1, 1.5, 2, 4, 5)
ALPHAS = (0, 0.25, 0.5, 0.75, 1, None, -1)
FLAGS = (False, True)
GAMMA, ALPHA = (2.0, *EXPONENTS), (0.25, *ALPHAS)
PER_CLASS = {'gamma': (0.0, 0.5, 1.0, 2.0, 5.0), 'alpha': (0.0, 0.1, 0.25, 0.75, 1.0)}


@dataclass(frozen=True)
class Variant:
    """One loss, written from its paper: nothing here is taken from the package.

    Attributes:
        kind: its name in focal_plugin.losses.
        function: its name in focal_plugin.functional.
        tried: what random calls try of each argument; the first is the published default.
        settings: a reason -> the arguments that differ from the defaults there. Every logit is tried with each; the defaults
            themselves come first. An exponent of 0 and one in (0, 1) give NaN in many ports; 1, 2 and 4 are specialised in
            the kernels, 1.5 and 5 are not.
        point: the closed form in longdouble, (x, y, positive, eps, **arguments) -> Point; None over a softmax.
        formula: the definition in float64, (x, y, positive, **arguments) -> the loss of each logit, differentiable.
        by_hand: values computed by hand, (x, y, value, derivative, the arguments that differ from the defaults).
        vectors: arguments that may be one number per class, with what is tried of each number.
        required: the number of classes -> the arguments of the function that have no default.
        required_by_class: the number of classes -> the arguments of the class that have no default.
        per_row: 'none' gives one number per row, and 'mean' divides by the rows.
        scored: (labels, scores) are taken as a target.
        dense: values of pred's shape are taken as a target.
        labelled: heads hand its class labels, which can be ignored and weighted.
        probabilities: the flag that says whether pred holds probabilities, or None.
        point_of_probability: point with a probability for x.
        silences: rows can be ignored.
        detaches: the derivative leaves out a factor that depends on x, whatever the arguments.
        without_target: arguments with which a score does not matter.
        silent: (y, positive, arguments) -> where a factor of the whole loss is exactly 0.
        factor_of_label: (labels, **arguments) -> a factor of each row; the background's label is the number of classes.
        rounded: arguments -> the hard labels, of (0, 1), at which a term is rounded that may cancel.
        units_of_p: how many eps p may be off on a GPU, where a difference from it cancels.
        passes: the operators over all logits that plain PyTorch may take, forward and backward.
    """

    kind: str
    function: str
    tried: dict[str, tuple]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    point: Callable[..., Point] | None = None
    formula: Callable | None = None
    by_hand: tuple[tuple, ...] = ()
    vectors: dict[str, tuple] = field(default_factory=dict)
    required: Callable[[int], dict] = lambda classes: {}
    required_by_class: Callable[[int], dict] | None = None
    per_row: bool = False
    scored: bool = False
    dense: bool = True
    labelled: bool = True
    probabilities: Literal['activated', 'from_logits'] | None = None
    point_of_probability: Callable[..., Point] | None = None
    silences: bool = True
    detaches: bool = False
    without_target: dict[str, Any] = field(default_factory=dict)
    silent: Callable | None = None
    factor_of_label: Callable | None = None
    rounded: Callable[[dict], tuple[int, ...]] = lambda arguments: ()
    units_of_p: int = 1
    passes: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'settings', {THE_DEFAULTS: {}} | self.settings)
        if self.required_by_class is None:
            object.__setattr__(self, 'required_by_class', self.required)

    def complete(self, given: dict[str, Any] | None = None) -> dict[str, Any]:
        """All arguments, those that were not given at their defaults."""
        return {name: values[0] for name, values in self.tried.items()} | (given or {})

    def arguments(self, classes: int, reason: str = THE_DEFAULTS) -> dict[str, Any]:
        """All arguments of the function in one of the settings."""
        return self.complete(self.required(classes) | self.settings[reason])

    @property
    def of_logits(self) -> dict[str, bool]:
        """The flag that a call with logits needs."""
        return {'from_logits': True} if self.probabilities == 'from_logits' else {}
