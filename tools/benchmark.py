"""Times FusedFocalLoss and its peers on the same work, in one run; rows go into tools/results/benchmark.csv.

The work: labels (1 row in 500 is positive; of a single class, as in masks, half of them), one weight a row, the sum over
avg_factor, forward and backward. A contender whose value or gradient is wrong is not timed. GB/s counts what has to move:
both passes read the logits, 8 bytes of label and 4 of weight a row, the backward writes a gradient of the logits' size; a
clone reads and writes the logits. Memory is the most that forward and backward hold beyond the logits, the gradient
included, in units of the logits' own bytes.

On a GPU the tests of the loss run first (`pytest -m gpu` runs all). Runs follow one another without waiting, on inputs
that together are four times the cache: a step takes the GPU's time, or Python's where it launches more slowly than the
GPU works, as for small shapes; gpu_ms is what the GPU's kernels take of it, by CUDA's profiler. A training step
(tools/benchmark_training.py), a table and a picture come last. What does not fit into --minutes is left out and named.
"""

import argparse
import contextlib
import itertools
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import benchmark_training
import torch
from _budget import Budget
from _cases import DTYPES, Case, problems, sets, value_and_gradient
from _contenders import CLONE, CONTENDERS, OURS, CannotRunError, first_line
from _gpu_tests import tests_pass
from _measure import Noise, busy, peak_bytes, release, timed, timed_runs
from _results import BENCHMARK, provenance, read, update

import focal_plugin

# On a GPU: RetinaNet on COCO, 182403 anchors of an 800 x 1216 image, 8 images, then about one; ATSS on LVIS, one anchor in
# place of 9, 4 images; MaskFormer, 16 masks.
SHAPES = {
    'cpu': ['200000x80', '20000x80', '12000x1203', '3000x3'],
    'cuda': ['1459224x80', '200000x80', '81068x1203', '15564800x1'],
}
USUAL_DTYPES = {'cpu': ['float32', 'bfloat16'], 'cuda': list(DTYPES)}
MINUTES = {'cpu': None, 'cuda': 7.0}
TESTS, TRAINING = 120.0, 80.0  # seconds: what the tests may take, what is kept for the training steps
KEY = ('machine', 'device', 'shape', 'dtype', 'contender')
MEMORY_FROM = {'cpu': 16e6, 'cuda': 0}  # bytes of logits: below, the pages that Python itself takes show in the figure
PROFILED = 10  # runs of a GPU whose kernels are timed one by one
TURN = 10  # milliseconds that a contender runs before the next one takes its turn
NOISE = 0.05  # of the processors' time taken by others: above, the figures are not to be trusted


def prepare(cases: list[Case], names: list[str]) -> tuple[dict, int]:
    """The contenders that run and are right on all inputs, and how many fail."""
    say(f'  checking {len(names)} contenders against float64 (torch.compile compiles now)')
    losses, wrong = {}, 0
    for case in cases:
        results = {}
        for name in names:
            try:
                if name not in losses:
                    losses[name] = CONTENDERS[name].prepare(case.pred)
                results[name] = value_and_gradient(case, name, losses[name])
            except CannotRunError as reason:
                print(f'  left out: {name}: {reason}')
            except Exception as error:  # whatever it is, the others are timed
                wrong += 1
                print(f'  NOT TIMED: {name}: {first_line(error)}')
        for name, problem in problems(case, results).items():
            wrong += 1
            print(f'  NOT TIMED: {name}: {problem}')
            del results[name]
        names = list(results)
    return {name: losses[name] for name in names}, wrong


def measure(case: Case, losses: dict, rounds: int, device: str, others: Sequence[Case] = ()) -> dict[str, dict]:
    """Times and memory of each contender; they take turns, so that a noisy moment hits all alike.

    Args:
        others: more inputs of the same kind: each run takes the next ones.
    """

    def forward_backward(loss):
        result = []
        return lambda case: (lambda: result.append(case.run(loss)), lambda: case.backward(result.pop()))

    inputs = itertools.cycle([case, *others])
    works = {name: forward_backward(loss) for name, loss in losses.items()}
    works[CLONE] = lambda case: (case.clone,)

    def turn(name: str, count: int) -> Iterator[tuple]:
        """The steps of so many runs. A gradient stays until its inputs come up again, so the next one finds other memory."""
        for case in itertools.islice(inputs, count):
            case.pred.grad = None
            yield works[name](case)

    warm_up = 0 if device == 'cpu' else 1
    times, runs, extra = {name: [] for name in works}, {}, {}
    for number in range(-1, rounds):  # the first round only tells how many runs make a turn, and measures the memory
        for name in works:
            time.sleep(0.01)  # threads of the previous contender may still spin
            with _backend(name):
                if number >= 0:
                    times[name] += timed_runs(device, turn(name, warm_up + runs[name]))
                    continue
                if case.bytes >= MEMORY_FROM[device]:
                    (steps,) = turn(name, 1)
                    extra[name] = peak_bytes(device, lambda steps=steps: timed(device, *steps))
                (once,) = timed_runs(device, turn(name, warm_up + 1))
                runs[name] = max(1, min(200, int(TURN / sum(once))))
        say(f'  round {number + 1} of {rounds}')
    gpu = {}
    for name in works if device == 'cuda' else ():
        with _backend(name):
            gpu[name] = busy(turn(name, PROFILED))
    for each in (case, *others):
        each.pred.grad = None
    return {name: row(case, name, times[name], extra.get(name), gpu.get(name)) for name in works}


def _backend(name: str) -> contextlib.AbstractContextManager:
    """Forces the one that a contender names."""
    return focal_plugin.use_backend(CONTENDERS[name].backend if name in CONTENDERS else 'auto')


def row(case: Case, name: str, times: list[list[float]], extra: int | None, gpu: float | None) -> dict:
    both = statistics.median(map(sum, times))
    moved = 2 * case.bytes if name == CLONE else case.moved
    parts = [''] * 2 if name == CLONE else [f'{statistics.median(column):.4g}' for column in zip(*times, strict=True)]
    return {
        'contender': name,
        'forward_ms': parts[0],
        'backward_ms': parts[1],
        'both_ms': f'{both:.4g}',
        'gpu_ms': '' if gpu is None else f'{gpu:.4g}',
        'gb_per_s': f'{moved / both / 1e6:.4g}',
        'extra_memory': '' if extra is None else f'{extra / case.bytes:.3g}',
        'runs': len(times),
    }


def print_table(rows: list[dict]) -> None:
    """Milliseconds, and how many times as long as the fastest of ours each takes."""
    ours = min((float(row['both_ms']) for row in rows if row['contender'] in OURS.values()), default=math.nan)
    print(
        f'  {"":26}{"forward":>9}{"backward":>10}{"both ms":>10}{"x ours":>8}{"GPU ms":>10}{"GB/s":>10}{"memory":>8}'
        f'{"runs":>6}'
    )
    for row in rows:
        print(
            f'  {row["contender"]:26}{row["forward_ms"]:>9}{row["backward_ms"]:>10}{row["both_ms"]:>10}'
            f'{float(row["both_ms"]) / ours:>8.2f}{row["gpu_ms"]:>10}{row["gb_per_s"]:>10}{row["extra_memory"]:>8}'
            f'{row["runs"]:>6}'
        )


def say(text: str) -> None:
    """Progress, which the next line on a terminal replaces."""
    if sys.stderr.isatty():
        print(f'\r\033[K{text}', end='\r', file=sys.stderr, flush=True)


def time_case(rows: int, classes: int, dtype: str, args: argparse.Namespace, source: dict[str, str]) -> int:
    """Times the contenders on one shape and dtype; gives how many of them fail."""
    print(f'\n({rows}, {classes}) {dtype} on {args.device}', flush=True)
    cases = sets(rows, classes, DTYPES[dtype], args.device)
    losses, wrong = prepare(cases, args.contenders)
    noise = Noise()
    results = list(measure(cases[0], losses, args.rounds, args.device, cases[1:]).values())
    say('')
    print_table(results)
    share = noise.share()
    if share is not None and share > NOISE:
        print(f'  NOISY: other processes took {share:.0%} of the processors: measure again on a quiet machine')
    if args.out:
        work = {'machine': source['machine'], 'device': args.device, 'shape': f'{rows}x{classes}', 'dtype': dtype}
        update(args.out, [{**work, **result, **source} for result in results], KEY)
    return wrong


def report(times: Path, steps: Path, machine: str, device: str, picture: Path) -> None:
    """A picture, and tables beside it, of what the CSVs hold of this machine."""
    import plot_benchmark
    import readme_tables

    def own(path: Path) -> list[dict[str, str]]:
        rows = read(path) if path.exists() else []
        return [row for row in rows if (row['machine'], row['device']) == (machine, device)]

    if own(times):
        plot_benchmark.save(plot_benchmark.draw(own(times)), picture)
        tables = picture.with_suffix('.md')
        parts = [readme_tables.benchmark(own(times)), readme_tables.training(own(steps))]
        tables.write_text('\n\n'.join(filter(None, parts)) + '\n')
        print(f'{picture}\n{tables}')


def shape(text: str) -> tuple[int, int]:
    rows, _, classes = text.partition('x')
    if not (rows.isdigit() and classes.isdigit() and int(rows) and int(classes)):
        raise argparse.ArgumentTypeError(f'a shape is ROWSxCLASSES, such as 20000x80, got {text!r}')
    return int(rows), int(classes)


def count(text: str) -> int:
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f'a number of rounds is at least 1, got {text!r}')
    return int(text)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    usual = '; '.join(f'{device}: {" ".join(shapes)}' for device, shapes in SHAPES.items())
    parser.add_argument('--shapes', nargs='+', type=shape, metavar='ROWSxCLASSES', help=f'default, {usual}')
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, help='default: all; cpu: float32 bfloat16')
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=list(CONTENDERS), metavar='NAME')
    parser.add_argument('--rounds', type=count, help='turns of each contender; default: 9, with --quick 3')
    parser.add_argument('--minutes', type=float, help='what all may take; default: 7; cpu: what it takes')
    parser.add_argument(
        '--skip', nargs='+', choices=['tests', 'training'], default=[], help='what to leave out of a run on a GPU'
    )
    parser.add_argument(
        '--quick', action='store_true', help='two small shapes, 3 rounds and nothing else; only printed, without --out'
    )
    parser.add_argument('--out', type=Path, help='the CSV, whose rows of the same work are replaced')
    parser.add_argument('--picture', type=Path, help='drawn from the CSV; default: gpu.png beside it; cpu: none')
    args = parser.parse_args(arguments)
    on_gpu = args.device == 'cuda'
    if on_gpu and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no GPU here')
    if on_gpu and focal_plugin.backend.INTERPRETING:
        parser.error('--device cuda: TRITON_INTERPRET=1 runs the kernels in Python')
    args.rounds = args.rounds or (3 if args.quick else 9)
    usual = ['20000x80', '3000x3'] if args.quick else SHAPES[args.device]
    args.shapes = args.shapes or [shape(text) for text in usual]
    args.dtypes = args.dtypes or USUAL_DTYPES[args.device]
    args.minutes = args.minutes or MINUTES[args.device]
    args.skip = ['tests', 'training'] if args.quick or not on_gpu else args.skip
    args.out = args.out or (None if args.quick else BENCHMARK)
    if args.picture and not args.out:
        parser.error('--picture is drawn from a CSV: give --out')
    if args.out and on_gpu:
        args.picture = args.picture or args.out.with_name('gpu.png')
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    budget, source, wrong = Budget(args.minutes), provenance(args.device), 0
    print(', '.join(f'{name} {value or "absent"}' for name, value in source.items()))
    if 'tests' not in args.skip and not tests_pass(min(TESTS, budget.left() / 3)):
        print('nothing is timed; --skip tests times what passes the check of each case')
        return 1
    works = {
        f'({rows}, {classes}) {dtype}': (rows, classes, dtype) for rows, classes in args.shapes for dtype in args.dtypes
    }
    for work in budget.within(works, keep=0 if 'training' in args.skip else min(TRAINING, budget.left() / 3)):
        try:
            wrong += time_case(*work, args, source)
        except torch.cuda.OutOfMemoryError:
            print('  left out: out of GPU memory')
        release()
    if args.out:
        steps = args.out.with_name('training.csv')
        if 'training' not in args.skip:
            wrong += benchmark_training.run(args.device, steps, source, budget)
        print(f'\nrows written to {args.out}')
        if args.picture:
            report(args.out, steps, source['machine'], args.device, args.picture)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
