"""Contenders that take turns at the same work: the time of a run, what the GPU and a graph's replay take of it, memory."""

import contextlib
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

import focal_plugin
from tools.benchmarks.contenders import CLONE, CONTENDERS, first_line
from tools.benchmarks.graphs import replayed
from tools.benchmarks.measure import busy, peak_bytes, timed, timed_runs

MEMORY_FROM = {'cpu': 16e6, 'cuda': 0}  # bytes of logits: below, the pages that Python itself takes show in the figure
PROFILED = 10  # runs of a GPU whose kernels are timed one by one
TURN = 10.0  # milliseconds that a contender runs before the next one takes its turn


class Inputs(Protocol):
    """A set of inputs, and the leaves in it that get a gradient."""

    bytes: int  # of logits
    gradients: list[Tensor | None]

    def run(self, loss: Any) -> Tensor: ...

    def backward(self, value: Tensor) -> None: ...

    def clear(self) -> None:
        """Frees the gradients."""

    def clone(self) -> None:
        """Leaves clones of the logits in the gradients' place."""


@dataclass
class Measured:
    """A contender's times in milliseconds and memory in units of the logits' bytes; None: not measured."""

    times: list[list[float]]
    gpu: float | None
    graph: float | None
    memory: float | None

    @property
    def both(self) -> float:
        return statistics.median(map(sum, self.times))

    @property
    def columns(self) -> dict[str, str | int]:
        """Those of a row that all CSVs have."""
        figures = {'both_ms': self.both, 'gpu_ms': self.gpu, 'graph_ms': self.graph}
        return {
            **{name: '' if figure is None else f'{figure:.4g}' for name, figure in figures.items()},
            'extra_memory': '' if self.memory is None else f'{self.memory:.3g}',
            'runs': len(self.times),
        }


def measure(
    inputs: Sequence[Inputs],
    losses: Mapping[str, Any],
    rounds: int,
    device: str,
    turn: float = TURN,
    memory_from: float | None = None,
) -> dict[str, Measured]:
    """Times and memory of each contender and of a clone; they take turns, so that a noisy moment hits all alike.

    Args:
        inputs: of the same kind: each run takes the next ones.
        losses: by name, what inputs run.
        turn: milliseconds.
        memory_from: bytes of logits from which memory is measured; by default, MEMORY_FROM.
    """

    def forward_backward(loss: Any) -> Callable[[Inputs], tuple]:
        result = []
        return lambda each: (lambda: result.append(each.run(loss)), lambda: each.backward(result.pop()))

    following = itertools.cycle(inputs)
    works = {name: forward_backward(loss) for name, loss in losses.items()}
    works[CLONE] = lambda each: (each.clone,)

    def steps_of(name: str, count: int) -> Iterator[tuple]:
        """The steps of so many runs. A gradient stays until its inputs come up again, so the next one finds other memory."""
        for each in itertools.islice(following, count):
            each.clear()
            yield works[name](each)

    warm_up = 0 if device == 'cpu' else 1
    memory_from = MEMORY_FROM[device] if memory_from is None else memory_from
    times, runs, extra = {name: [] for name in works}, {}, {}
    for number in range(-1, rounds):  # the first round only tells how many runs make a turn, and measures the memory
        for name in works:
            time.sleep(0.01)  # threads of the previous contender may still spin
            with _backend(name):
                if number >= 0:
                    times[name] += timed_runs(device, steps_of(name, warm_up + runs[name]))
                    continue
                if inputs[0].bytes >= memory_from:
                    (steps,) = steps_of(name, 1)
                    extra[name] = peak_bytes(device, lambda steps=steps: timed(device, *steps))
                (once,) = timed_runs(device, steps_of(name, warm_up + 1))
                runs[name] = max(1, min(200, int(turn / sum(once))))
        say(f'  round {number + 1} of {rounds}')
    gpu, graph = {}, {}
    for name in works if device == 'cuda' else ():
        with _backend(name):
            gpu[name] = busy(steps_of(name, PROFILED))
            graph[name] = _replayed(name, lambda name=name: steps_of(name, len(inputs)), inputs)
    for each in inputs:
        each.clear()
    return {
        name: Measured(
            times[name],
            gpu.get(name),
            graph.get(name),
            None if extra.get(name) is None else extra[name] / inputs[0].bytes,
        )
        for name in works
    }


def _replayed(name: str, runs: Callable[[], Iterator[tuple]], inputs: Sequence[Inputs]) -> float | None:
    try:
        return replayed(runs, lambda: [gradient for each in inputs for gradient in each.gradients])
    except Exception as error:  # whatever it is, the contender has its other figures
        print(f'  no CUDA graph of {name}: {first_line(error)}')
        return None


def _backend(name: str) -> contextlib.AbstractContextManager:
    """Forces the one that a contender names."""
    return focal_plugin.use_backend(CONTENDERS[name].backend if name in CONTENDERS else 'auto')


def say(text: str) -> None:
    """Progress, which the next line on a terminal replaces."""
    if sys.stderr.isatty():
        print(f'\r\033[K{text}', end='\r', file=sys.stderr, flush=True)
