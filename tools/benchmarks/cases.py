"""What losses.py times: the inputs, and the exact result that contenders are held to."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

import focal_plugin
from tools.benchmarks.contenders import CONTENDERS, CannotRunError, formula

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
# What a contender may be off by: relative to the exact result, and to the largest gradient. Peers compute in the dtype.
TOLERANCE = {torch.float32: (1e-3, 1e-5), torch.float16: (0.1, 1e-2), torch.bfloat16: (0.1, 1e-2)}
CHUNK = {'cpu': 2**20, 'cuda': 2**22}  # logits that the exact result is computed of at a time
CACHE = 2**28  # bytes that AMD's cards cache beside their memory, which torch does not count as L2
Inputs = TypeVar('Inputs')
MOST_SETS = 64  # what is smaller than a 64th of the cache spends its time on launches


@dataclass
class Case:
    """A set of inputs."""

    pred: Tensor
    labels: Tensor
    weight: Tensor
    avg_factor: int

    @classmethod
    def make(cls, rows: int, classes: int, dtype: torch.dtype, device: str, seed: int = 0) -> 'Case':
        """As in a detector that has begun to learn: most logits say background.

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
        return cls(pred, labels, weight, rows if masks else positives)

    @property
    def bytes(self) -> int:
        return self.pred.nbytes

    @property
    def moved(self) -> int:
        """Bytes: both passes read the logits, the labels and the weights, the backward writes the gradient."""
        return 3 * self.bytes + 2 * (self.labels.nbytes + self.weight.nbytes)

    @property
    def upstream(self) -> float:
        """The gradient that the backward starts from. float16 can't hold those of a mean: training scales them up too."""
        return float(self.avg_factor) if self.pred.dtype == torch.float16 else 1.0

    def run(self, loss) -> Tensor:
        return loss(self.pred, self.labels, self.weight, self.avg_factor)

    def backward(self, value: Tensor) -> None:
        value.backward(torch.full_like(value, self.upstream))

    @property
    def gradients(self) -> list[Tensor | None]:
        return [self.pred.grad]

    def clear(self) -> None:
        self.pred.grad = None

    def clone(self) -> None:
        """What a gradient takes at least; kept in its place, and as long."""
        self.pred.grad = self.pred.detach().clone()

    def exact(self):
        """(rows, value, gradient) in float64, a chunk of rows at a time."""
        step = max(1, CHUNK[self.pred.device.type] // self.pred.size(1))
        for start in range(0, len(self.pred), step):
            rows = slice(start, start + step)
            pred = self.pred.detach()[rows].double().requires_grad_()
            value = formula(pred, self.labels[rows], self.weight[rows].double(), self.avg_factor)
            self.backward(value)
            yield rows, value.item(), pred.grad


def sets(make: Callable[[int], Inputs], device: str) -> list[Inputs]:
    """Inputs to take in turn, so that a GPU finds none in its cache; on the CPU one.

    Args:
        make: a seed -> the inputs, whose `bytes` are those of the logits.
    """
    first = make(0)
    if device == 'cpu':
        return [first]
    cache = getattr(torch.cuda.get_device_properties(device), 'L2_cache_size', 0)  # since torch 2.5
    return [first, *map(make, range(1, sets_needed(first.bytes, cache, torch.cuda.mem_get_info()[0])))]


def sets_needed(size: int, cache: int, free: int) -> int:
    """How many sets of so many bytes of logits make four times the cache, with an eighth of the free memory at most."""
    return max(1, min(math.ceil(max(4 * cache, CACHE) / size), MOST_SETS, free // (8 * size)))


def value_and_gradient(case: Case, name: str, loss) -> tuple[float, Tensor]:
    """Those of a contender.

    Raises:
        CannotRunError: it needs more memory than the GPU has.
    """
    case.pred.grad = None
    try:
        with focal_plugin.use_backend(CONTENDERS[name].backend):
            value = case.run(loss)
            case.backward(value)
        return value.item(), case.pred.grad
    except torch.cuda.OutOfMemoryError as error:
        raise CannotRunError('out of GPU memory') from error
    finally:
        case.pred.grad = None


def problems(case: Case, results: dict[str, tuple[float, Tensor]]) -> dict[str, str]:
    """What is wrong with each result that is wrong; computes the exact one once for all."""
    relative, absolute = TOLERANCE[case.pred.dtype]
    exact, worst, largest = 0.0, dict.fromkeys(results, 0.0), 0.0
    for _, value, gradient in case.exact():
        exact += value
        largest = max(largest, gradient.abs().max().item())
    for rows, _, gradient in case.exact():
        bound = relative * gradient.abs() + absolute * largest
        for name, (_, got) in results.items():
            # A NaN counts as wrong: it is not at most the bound.
            off = ((got[rows].double() - gradient).abs() / bound).nan_to_num(nan=math.inf)
            worst[name] = max(worst[name], off.max().item())
    found = {}
    for name, (value, _) in results.items():
        if not abs(value - exact) <= relative * abs(exact):
            found[name] = f'its value is {value:g} where {exact:g} is right'
        elif worst[name] > 1:
            found[name] = f'its gradient is off by {worst[name]:.3g} times the tolerance'
    return found
