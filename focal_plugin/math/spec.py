"""What one variant is, whatever computes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spec:
    """A variant of the sigmoid focal loss.

    The point function takes what one logit gives (x, p, q = 1 - p, log p, log q), the target y, whether the element is
    a positive, and the parameters. Three twins of it exist: ``value`` in plain PyTorch, ``value_and_grad`` in Triton and
    ``<name>.h`` in C++. All derivatives are with respect to the logit.

    Attributes:
        name: the name at every layer: math/<name>.py, math/<name>.h, kernel reports, benchmarks.
        paper: arXiv number of the source.
        formula: the loss of one logit, for documentation.
        defaults: public arguments and their defaults, written nowhere else.
        pack: public arguments -> the numbers (or tensors of C) that the point functions take; the first is the exponent
            that the kernels specialise at 0, 1 and 2.
        value: eager point function, differentiable.
        value_and_grad: source of the Triton point function; compiled at its first use.
    """

    name: str
    paper: str
    formula: str
    defaults: Mapping[str, Any]
    pack: Callable[..., tuple]
    value: Callable
    value_and_grad: Callable
