"""Contenders that take turns at the same work: the time of a run, what the GPU and a graph's replay take of it, memory."""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import focal_plugin
from tools.benchmarks import options
from tools.benchmarks.contenders import BACKENDS, CLONE, first_line
from tools.benchmarks.inputs import Inputs, Loss, right_ones, sets
from tools.benchmarks.measure import busy, peak_bytes, release, replayed, run_all, timed_runs
from tools.benchmarks.results import four_digits, table, update

MEMORY_FROM = {'cpu': 1e6, 'cuda': 0}  # bytes of logits: below, the pages that Python itself takes show in the figure
PROFILED = 10  # runs of a GPU whose kernels are timed one by one
TURN = 10.0  # milliseconds that a contender runs before the next one takes its turn
Row = dict[str, Any]


def measure(
    inputs: Sequence[Inputs], losses: Mapping[str, Loss], rounds: int, device: str, turn: float = TURN
) -> list[Row]:
    """Rows of each contender and of a clone; they take turns, so that a noisy moment hits all alike.

    Args:
        inputs: of the same kind: each run takes the next ones.
        losses: by name, what inputs run.
        turn: milliseconds.
    """

    def forward_backward(loss: Loss) -> Callable[[Inputs], tuple]:
        result = []
        return lambda each: (lambda: result.append(each.run(loss)), lambda: each.backward(result.pop()))

    following = itertools.cycle(inputs)
    works = {name: forward_backward(loss) for name, loss in losses.items()}
    works[CLONE] = lambda each: (each.clone,)

    def runs_of(name: str, count: int) -> Iterator[tuple]:
        """The steps of so many runs. A gradient stays until its inputs come up again, so the next one finds other memory."""
        for each in itertools.islice(following, count):
            each.clear()
            yield works[name](each)

    warm_up = 0 if device == 'cpu' else 1
    times, runs, figures = {name: [] for name in works}, {}, {name: {} for name in works}
    for number in range(-1, rounds):  # the first round only tells how many runs make a turn, and measures the memory
        for name in works:
            time.sleep(0.01)  # threads of the previous contender may still spin
            with focal_plugin.use_backend(BACKENDS.get(name, 'auto')):
                if number >= 0:
                    times[name] += timed_runs(device, runs_of(name, warm_up + runs[name]))
                    continue
                if inputs[0].bytes >= MEMORY_FROM[device]:
                    clear(inputs)  # else the run frees one, and its own does not show
                    figures[name]['memory'] = peak_bytes(device, lambda name=name: run_all(runs_of(name, 1)))
                (once,) = timed_runs(device, runs_of(name, warm_up + 1))
                runs[name] = max(1, min(200, int(turn / sum(once))))
    for name in works if device == 'cuda' else ():
        with focal_plugin.use_backend(BACKENDS.get(name, 'auto')):
            figures[name]['gpu'] = busy(runs_of(name, PROFILED))
            try:
                figures[name]['graph'] = replayed(
                    lambda name=name: runs_of(name, len(inputs)),
                    lambda: [gradient for each in inputs for gradient in each.gradients],
                )
            except Exception as error:  # whatever it is, the contender has its other figures
                print(f'  no CUDA graph of {name}: {first_line(error)}')
    clear(inputs)
    return [row(name, inputs[0], times[name], **figures[name]) for name in works]


def clear(inputs: Iterable[Inputs]) -> None:
    """Frees the gradients."""
    for each in inputs:
        each.clear()


def row(
    name: str,
    inputs: Inputs,
    times: list[list[float]],
    gpu: float | None = None,
    graph: float | None = None,
    memory: int | None = None,
) -> Row:
    """Milliseconds of each step of each run, of the GPU and of a replay, and bytes, as columns."""
    steps = [statistics.median(column) for column in zip(*times, strict=True)]
    forward, backward = (None, None) if name == CLONE else steps
    both = statistics.median(map(sum, times))
    moved = 2 * inputs.bytes if name == CLONE else inputs.moved
    figures = {
        'forward_ms': forward,
        'backward_ms': backward,
        'both_ms': both,
        'gb_per_s': moved / both / 1e6,
        'gpu_ms': gpu,
        'graph_ms': graph,
    }
    shown = {name: '' if figure is None else four_digits(figure) for name, figure in figures.items()}
    extra = '' if memory is None else f'{memory / inputs.bytes:.3g}'
    return {'contender': name, **shown, 'extra_memory': extra, 'runs': len(times)}


@dataclass
class Work:
    """What contenders take turns at.

    Attributes:
        title: what it is.
        make: a seed -> the inputs.
        contenders: by name, the logits -> the loss; raises CannotRunError.
        exact: the loss that they are held to, called in float64.
        tolerance: relative to the exact result, and to the largest gradient.
        rows: those of the CSV, without their source, from those of the contenders.
        references: timed beside them, and not held to anything.
        turn: as `measure` takes it.
        rounds: instead of those of the arguments.
    """

    title: str
    make: Callable[[int], Inputs]
    contenders: Mapping[str, Callable[[Tensor], Loss]]
    exact: Loss
    tolerance: tuple[float, float]
    rows: Callable[[list[Row]], list[Row]]
    references: Mapping[str, Loss] = field(default_factory=dict)
    turn: float = TURN
    rounds: int | None = None


def run(works: Iterable[Work], args: argparse.Namespace, key: Sequence[str]) -> int:
    """Times all works and writes their rows; gives the exit status, 1 where a contender is wrong."""
    source, wrong = options.begin(args.device), 0
    head = {'machine': source['machine'], 'device': args.device}
    for work in works:
        print(f'\n{work.title} on {args.device}', flush=True)
        try:
            inputs = sets(work.make, args.device)
            losses, failed = right_ones(inputs, work.contenders, work.exact, work.tolerance)
            wrong += failed
            rounds = work.rounds or args.rounds
            rows = measure(inputs, {**losses, **work.references}, rounds, args.device, work.turn)
        except torch.cuda.OutOfMemoryError:
            print('  left out: out of GPU memory')
            continue
        print(table(rows), flush=True)
        if args.out:
            update(args.out, [{**head, **row, **source} for row in work.rows(rows)], key)
        del inputs, losses
        release()
    if args.out:
        print(f'\nrows written to {args.out}')
    return 1 if wrong else 0
