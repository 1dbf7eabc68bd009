"""Times FusedFocalLoss and its peers on the same work, in one run; rows go into tools/results/benchmark.csv.

The work: labels (1 row in 500 is positive; of a single class, as in masks, half of them), one weight a row, the sum over
avg_factor, forward and backward. A contender whose value or gradient is wrong is not timed. GB/s counts what has to move:
both passes read the logits, 8 bytes of label and 4 of weight a row, the backward writes a gradient of the logits' size; a
clone reads and writes the logits. Memory is the most that forward and backward hold beyond the logits, the gradient
included, in units of the logits' own bytes.

On a GPU the tests of the loss run first (`pytest -m gpu` runs all). Runs follow one another without waiting, on inputs
that together are four times the cache: a step takes the GPU's time, or Python's where it launches more slowly than the
GPU works, as for small shapes; gpu_ms is what the GPU's kernels take of it, by CUDA's profiler, and graph_ms what a run
takes where a CUDA graph replays it: the GPU's work with the gaps between its kernels, and no Python. A training step
(training.py), a table and a picture come last. What does not fit into --minutes, and what needs a package
that is not installed, is left out and named.
"""

import argparse
import importlib.util
import math
import statistics
import sys
from pathlib import Path

import torch

import focal_plugin
from tools.benchmarks import tables
from tools.benchmarks.budget import Budget
from tools.benchmarks.cases import DTYPES, Case, problems, sets, value_and_gradient
from tools.benchmarks.contenders import CLONE, CONTENDERS, HAS_MMDET, CannotRunError, first_line, is_ours
from tools.benchmarks.measure import Noise, release
from tools.benchmarks.results import BENCHMARK, provenance, read, update
from tools.benchmarks.turns import Measured, measure, say
from tools.maintain.gpu_tests import tests_pass

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


def row(case: Case, name: str, measured: Measured) -> dict:
    moved = 2 * case.bytes if name == CLONE else case.moved
    parts = zip(*measured.times, strict=True)
    forward, backward = [''] * 2 if name == CLONE else [f'{statistics.median(column):.4g}' for column in parts]
    return {
        'contender': name,
        'forward_ms': forward,
        'backward_ms': backward,
        'gb_per_s': f'{moved / measured.both / 1e6:.4g}',
        **measured.columns,
    }


def print_table(rows: list[dict]) -> None:
    """Milliseconds, and how many times as long as the fastest of ours each takes."""
    ours = min((float(row['both_ms']) for row in rows if is_ours(row['contender'])), default=math.nan)
    columns = {
        '': 'contender',
        'forward': 'forward_ms',
        'backward': 'backward_ms',
        'both ms': 'both_ms',
        'x ours': 'times',
        'GPU ms': 'gpu_ms',
        'graph ms': 'graph_ms',
        'GB/s': 'gb_per_s',
        'memory': 'extra_memory',
        'runs': 'runs',
    }
    for row in [
        {column: title for title, column in columns.items()},
        *(row | {'times': f'{float(row["both_ms"]) / ours:.2f}'} for row in rows),
    ]:
        contender, *figures = (row[column] for column in columns.values())
        print(f'  {contender:26}' + ''.join(f'{figure:>10}' for figure in figures))


def time_case(rows: int, classes: int, dtype: str, args: argparse.Namespace, source: dict[str, str]) -> int:
    """Times the contenders on one shape and dtype; gives how many of them fail."""
    print(f'\n({rows}, {classes}) {dtype} on {args.device}', flush=True)
    cases = sets(lambda seed: Case.make(rows, classes, DTYPES[dtype], args.device, seed), args.device)
    losses, wrong = prepare(cases, args.contenders)
    noise = Noise()
    measured = measure(cases, losses, args.rounds, args.device)
    results = [row(cases[0], name, each) for name, each in measured.items()]
    say('')
    print_table(results)
    share = noise.share()
    if share is not None and share > NOISE:
        print(f'  NOISY: other processes took {share:.0%} of the processors: measure again on a quiet machine')
    if args.out:
        work = {'machine': source['machine'], 'device': args.device, 'shape': f'{rows}x{classes}', 'dtype': dtype}
        update(args.out, [{**work, **result, **source} for result in results], KEY)
    return wrong


def training(device: str, out: Path, source: dict[str, str], budget: Budget) -> int:
    if not HAS_MMDET:
        print('\nleft out: the training step, because mmdet is not installed')
        return 0
    from tools.benchmarks import training as step

    return step.run(device, out, source, budget)


def report(times: Path, steps: Path, machine: str, device: str, picture: Path) -> None:
    """A picture, and tables beside it, of what the CSVs hold of this machine."""

    def own(path: Path) -> list[dict[str, str]]:
        rows = read(path) if path.exists() else []
        return [row for row in rows if (row['machine'], row['device']) == (machine, device)]

    if own(times):
        markdown = picture.with_suffix('.md')
        parts = [tables.benchmark(own(times)), tables.training(own(steps))]
        markdown.write_text('\n\n'.join(filter(None, parts)) + '\n')
        print(markdown)
        if importlib.util.find_spec('matplotlib') is None:
            print(f'left out: {picture}, because matplotlib is not installed')
            return
        from tools.plots import benchmark as plot_benchmark

        plot_benchmark.save(plot_benchmark.draw(own(times)), picture)
        print(picture)


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
            wrong += training(args.device, steps, source, budget)
        print(f'\nrows written to {args.out}')
        if args.picture:
            report(args.out, steps, source['machine'], args.device, args.picture)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
