"""What the benchmarks call contenders with, and how the results are held to the exact ones."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import focal_plugin
from focal_plugin.math import Spec
from focal_plugin.math.spec import REQUIRED
from tools.benchmarks.contenders import BACKENDS, CannotRunError, first_line

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
# What a contender may be off by: relative to the exact result, and to the largest gradient. Peers compute in the dtype.
TOLERANCE = {torch.float32: (1e-3, 1e-5), torch.float16: (0.1, 1e-2), torch.bfloat16: (0.1, 1e-2)}
CACHE = 2**28  # bytes that AMD's cards cache beside their memory, which torch does not count as L2
MOST_SETS = 64  # what is smaller than a 64th of the cache spends its time on launches
Loss = Callable[..., Tensor]


@dataclass
class Inputs:
    """A set of inputs of a loss.

    Attributes:
        logits: which get a gradient.
        rest: the arguments after them.
        upstream: the gradient that the backward starts from.
        of_references: more arguments, which do not count as moved.
    """

    logits: list[Tensor]
    rest: tuple = ()
    upstream: float = 1.0
    of_references: tuple = ()

    @property
    def bytes(self) -> int:
        return sum(each.nbytes for each in self.logits)

    @property
    def moved(self) -> int:
        """Bytes: both passes read all, the backward writes the gradient."""
        return 3 * self.bytes + 2 * sum(
            each.nbytes for each in pytree.tree_leaves(self.rest) if isinstance(each, Tensor)
        )

    @property
    def gradients(self) -> list[Tensor | None]:
        return [each.grad for each in self.logits]

    def run(self, loss: Loss) -> Tensor:
        return loss(*self.logits, *self.rest, *self.of_references)

    def backward(self, value: Tensor) -> None:
        value.backward(torch.full_like(value, self.upstream))

    def clear(self) -> None:
        """Frees the gradients."""
        for each in self.logits:
            each.grad = None

    def clone(self) -> None:
        """What gradients take at least; kept in their place, and as long."""
        for each in self.logits:
            each.grad = each.detach().clone()

    def result(self, loss: Loss) -> tuple[float, list[Tensor]]:
        """Value and gradients."""
        try:
            value = self.run(loss)
            self.backward(value)
            return value.item(), self.gradients
        finally:
            self.clear()

    def double(self) -> 'Inputs':
        """The same in float64."""
        logits = [each.detach().double().requires_grad_() for each in self.logits]
        rest, more = converted((self.rest, self.of_references), torch.float64)
        return Inputs(logits, rest, self.upstream, more)


def converted(values: Any, dtype: torch.dtype) -> Any:
    """Values with the floating-point tensors in them in this dtype."""
    return pytree.tree_map_only(Tensor, lambda each: each.to(dtype) if each.is_floating_point() else each, values)


def detector(rows: int, classes: int, dtype: torch.dtype, device: str, seed: int = 0) -> Inputs:
    """Logits, labels, weights and avg_factor as in a detector that has begun to learn: most logits say background.

    One class: pixels of masks, half of them positive, and the mean over all.
    """
    generator = torch.Generator(device).manual_seed(seed)
    masks = classes == 1
    pred = torch.randn(rows, classes, generator=generator, device=device).mul_(2).sub_(0 if masks else 4)
    positives = math.ceil(rows / 500)
    if masks:
        labels = torch.randint(0, 2, (rows,), generator=generator, device=device)
    else:
        labels = torch.full((rows,), classes, device=device)
        labels[::500] = torch.randint(0, classes, (positives,), generator=generator, device=device)
    weight = torch.rand(rows, generator=generator, device=device).add_(0.5)
    pred = pred.clamp_(-16, 8).to(dtype).requires_grad_()  # mmcv's float16 is NaN beyond -17.3 and 8.3
    avg_factor = rows if masks else positives
    # float16 can't hold the gradients of a mean: training scales them up too.
    return Inputs([pred], (labels, weight, avg_factor), float(avg_factor) if dtype == torch.float16 else 1.0)


def typical_arguments(spec: Spec, classes: int, device: str = 'cpu') -> dict[str, Any]:
    """The defaults, with a number per class where a long-tailed data set gives one."""
    arguments = dict(spec.defaults)
    if arguments.get('samples_per_class') is REQUIRED:
        arguments['samples_per_class'] = tuple(10.0 + c for c in range(classes))
    if 'ratio' in arguments:
        arguments['ratio'] = torch.linspace(0.05, 1, classes).to(device)
    return arguments


def sets(make: Callable[[int], Inputs], device: str) -> list[Inputs]:
    """Inputs, each from a seed, to take in turn, so that a GPU finds none in its cache; on the CPU one."""
    first = make(0)
    if device == 'cpu':
        return [first]
    cache = getattr(torch.cuda.get_device_properties(device), 'L2_cache_size', 0)  # since torch 2.5
    return [first, *map(make, range(1, sets_needed(first.bytes, cache, torch.cuda.mem_get_info()[0])))]


def sets_needed(size: int, cache: int, free: int) -> int:
    """How many sets of so many bytes of logits make four times the cache, with an eighth of the free memory at most."""
    return max(1, min(math.ceil(max(4 * cache, CACHE) / size), MOST_SETS, free // (8 * size)))


def right_ones(
    inputs: list[Inputs],
    contenders: Mapping[str, Callable[[Tensor], Loss]],
    exact: Loss,
    tolerance: tuple[float, float],
) -> tuple[dict[str, Loss], int]:
    """The losses that agree with the exact one on all inputs, and how many fail; prints which are not timed, and why.

    The inputs are of the same kind; compare.Work has the other arguments.
    """
    losses, wrong, left = {}, 0, dict(contenders)
    for each in inputs:
        right = each.double().result(exact)
        for name, prepare in list(left.items()):
            said, fails = '', 0
            try:
                if name not in losses:
                    losses[name] = prepare(each.logits[0])
                with focal_plugin.use_backend(BACKENDS.get(name, 'auto')):
                    found = problem(each.result(losses[name]), right, tolerance)
                if found is not None:
                    said, fails = f'NOT TIMED: {name}: {found}', 1
            except CannotRunError as reason:
                said = f'left out: {name}: {reason}'
            except torch.cuda.OutOfMemoryError:
                said = f'left out: {name}: out of GPU memory'
            except Exception as error:  # whatever it is, the others are timed
                said, fails = f'NOT TIMED: {name}: {first_line(error)}', 1
            if said:
                print(f'  {said}')
                del left[name]
                wrong += fails
    return {name: losses[name] for name in left}, wrong


def problem(
    found: tuple[float, list[Tensor]], right: tuple[float, list[Tensor]], tolerance: tuple[float, float]
) -> str | None:
    """What is wrong with a value and gradients."""
    (value, gradients), (exact, exact_gradients), (relative, absolute) = found, right, tolerance
    if not abs(value - exact) <= relative * abs(exact):
        return f'its value is {value:g} where {exact:g} is right'
    largest = max(each.abs().max() for each in exact_gradients)
    worst = 0.0
    for got, gradient in zip(gradients, exact_gradients, strict=True):
        # A NaN counts as wrong: it is not at most the bound.
        off = (got.double() - gradient).abs() / (relative * gradient.abs() + absolute * largest)
        worst = max(worst, off.nan_to_num(nan=math.inf).max().item())
    return None if worst <= 1 else f'its gradient is off by {worst:.3g} times the tolerance'
