"""Times FusedFocalLoss and its peers on the same work, in one run; rows go into tools/results/benchmark.csv.

The work: labels (1 row in 500 is positive), one weight a row, the sum over avg_factor, forward and backward. A contender
whose value or gradient is wrong is not timed. GB/s counts what has to move: the forward reads the logits, the backward
reads them and writes their gradient, 3 x 4 bytes a logit in float32 and 3 x 2 in bfloat16; a clone reads and writes,
2 x 4 and 2 x 2. Memory is the most that forward and backward hold beyond the logits, the gradient included, in units
of the logits' own bytes.
"""

import argparse
import math
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from _contenders import CONTENDERS, OURS, CannotRunError, formula
from _measure import Noise, peak_bytes, timed
from _results import BENCHMARK, provenance, update
from torch import Tensor

import focal_plugin

SHAPES = ['200000x80', '20000x80', '12000x1203', '3000x3']
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
KEY = ('machine', 'device', 'shape', 'dtype', 'contender')
CLONE = 'clone of the logits'
# What a contender may be off by: relative to the exact result, and to the largest gradient. Peers compute in the dtype.
TOLERANCE = {torch.float32: (1e-3, 1e-5), torch.bfloat16: (0.1, 1e-2)}
MEMORY_FROM = 16e6  # bytes of logits: below, the pages that Python itself takes show in the figure
TURN = 10  # milliseconds that a contender runs before the next one takes its turn
NOISE = 0.05  # of the processors' time taken by others: above, the figures are not to be trusted
CHUNK = 2**20


@dataclass
class Case:
    """One shape and dtype: the inputs, and the exact result."""

    pred: Tensor
    labels: Tensor
    weight: Tensor
    avg_factor: int

    @classmethod
    def make(cls, rows: int, classes: int, dtype: torch.dtype, device: str) -> 'Case':
        generator = torch.Generator().manual_seed(0)
        # As in a detector that has begun to learn: most logits say background.
        pred = torch.randn(rows, classes, generator=generator).mul_(2).sub_(4).to(device, dtype).requires_grad_()
        labels = torch.full((rows,), classes)
        labels[::500] = torch.randint(classes, (math.ceil(rows / 500),), generator=generator)
        weight = torch.rand(rows, generator=generator).add_(0.5)
        return cls(pred, labels.to(device), weight.to(device), math.ceil(rows / 500))

    @property
    def bytes(self) -> int:
        return self.pred.numel() * self.pred.element_size()

    def run(self, loss) -> Tensor:
        return loss(self.pred, self.labels, self.weight, self.avg_factor)

    def exact(self):
        """(rows, value, gradient) in float64, a chunk of rows at a time."""
        step = max(1, CHUNK // self.pred.size(1))
        for start in range(0, len(self.pred), step):
            rows = slice(start, start + step)
            pred = self.pred.detach()[rows].double().requires_grad_()
            value = formula(pred, self.labels[rows], self.weight[rows].double(), self.avg_factor)
            value.backward()
            yield rows, value.item(), pred.grad


def check(case: Case, losses: dict) -> dict[str, str]:
    """What is wrong with each contender that is wrong; reads the exact result once for all."""
    values, gradients = {}, {}
    for name, loss in losses.items():
        with focal_plugin.use_backend(CONTENDERS[name].backend):
            case.pred.grad = None
            value = case.run(loss)
            value.backward()
        values[name], gradients[name] = value.item(), case.pred.grad
    case.pred.grad = None
    relative, absolute = TOLERANCE[case.pred.dtype]
    exact, worst, largest = 0.0, dict.fromkeys(losses, 0.0), 0.0
    for _, value, gradient in case.exact():
        exact += value
        largest = max(largest, gradient.abs().max().item())
    for rows, _, gradient in case.exact():
        bound = relative * gradient.abs() + absolute * largest
        for name in losses:
            # A NaN counts as wrong: it is not at most the bound.
            off = ((gradients[name][rows].double() - gradient).abs() / bound).nan_to_num(nan=math.inf)
            worst[name] = max(worst[name], off.max().item())
    problems = {}
    for name in losses:
        if not abs(values[name] - exact) <= relative * abs(exact):
            problems[name] = f'its value is {values[name]:g} where {exact:g} is right'
        elif worst[name] > 1:
            problems[name] = f'its gradient is off by {worst[name]:.3g} times the tolerance'
    return problems


def prepare(case: Case, names: list[str], device: str) -> tuple[dict, int]:
    """The contenders that run and are right, and how many are wrong."""
    losses = {}
    for name in names:
        try:
            losses[name] = CONTENDERS[name].prepare(case.pred.dtype, device)
        except CannotRunError as reason:
            print(f'  left out: {name}: {reason}')
    say(f'  checking {len(losses)} contenders against float64 (torch.compile compiles now)')
    problems = check(case, losses)
    for name, problem in problems.items():
        print(f'  NOT TIMED: {name}: {problem}')
    return {name: loss for name, loss in losses.items() if name not in problems}, len(problems)


def measure(case: Case, losses: dict, rounds: int, device: str) -> dict[str, dict]:
    """Times and memory of each contender; they take turns, so that a noisy moment hits all alike."""

    def forward_backward(loss):
        result = []
        return lambda: result.append(case.run(loss)), lambda: result.pop().backward()

    steps = {name: forward_backward(loss) for name, loss in losses.items()}
    steps[CLONE] = (lambda: case.pred.detach().clone(),)
    times, runs, extra = {name: [] for name in steps}, dict.fromkeys(steps, 1), {}
    for turn in range(-1, rounds):  # the first round only tells how many runs make a turn, and measures the memory
        for name, work in steps.items():
            time.sleep(0.01)  # threads of the previous contender may still spin
            with focal_plugin.use_backend(CONTENDERS[name].backend if name in CONTENDERS else 'auto'):
                if turn < 0 and case.bytes >= MEMORY_FROM:
                    case.pred.grad = None
                    extra[name] = peak_bytes(device, lambda work=work: timed(device, *work))
                for _ in range(runs[name]):
                    case.pred.grad = None
                    times[name].append(timed(device, *work))
            if turn < 0:
                runs[name] = max(1, min(200, int(TURN / sum(times[name].pop()))))
        say(f'  round {turn + 1} of {rounds}')
    case.pred.grad = None
    return {name: row(case, name, times[name], extra.get(name)) for name in steps}


def row(case: Case, name: str, times: list[list[float]], extra: int | None) -> dict:
    both = statistics.median(map(sum, times))
    moved = (2 if name == CLONE else 3) * case.bytes
    parts = [''] * 2 if name == CLONE else [f'{statistics.median(column):.4g}' for column in zip(*times, strict=True)]
    return {
        'contender': name,
        'forward_ms': parts[0],
        'backward_ms': parts[1],
        'both_ms': f'{both:.4g}',
        'gb_per_s': f'{moved / both / 1e6:.4g}',
        'extra_memory': '' if extra is None else f'{extra / case.bytes:.3g}',
        'runs': len(times),
    }


def print_table(rows: list[dict]) -> None:
    """Milliseconds, and how many times as long as the fastest of ours each takes."""
    ours = min((float(row['both_ms']) for row in rows if row['contender'] in OURS.values()), default=math.nan)
    print(f'  {"":26}{"forward":>9}{"backward":>10}{"both ms":>10}{"x ours":>8}{"GB/s":>10}{"memory":>8}{"runs":>6}')
    for row in rows:
        print(
            f'  {row["contender"]:26}{row["forward_ms"]:>9}{row["backward_ms"]:>10}{row["both_ms"]:>10}'
            f'{float(row["both_ms"]) / ours:>8.2f}{row["gb_per_s"]:>10}{row["extra_memory"]:>8}{row["runs"]:>6}'
        )


def say(text: str) -> None:
    """Progress, which the next line on a terminal replaces."""
    if sys.stderr.isatty():
        print(f'\r\033[K{text}', end='\r', file=sys.stderr, flush=True)


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
    parser.add_argument('--shapes', nargs='+', type=shape, metavar='ROWSxCLASSES', help=f'default: {" ".join(SHAPES)}')
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, default=list(DTYPES))
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=list(CONTENDERS), metavar='NAME')
    parser.add_argument('--rounds', type=count, help='turns of each contender; default: 9, with --quick 3')
    parser.add_argument(
        '--quick', action='store_true', help='the two small shapes, 3 rounds; only printed, without --out'
    )
    parser.add_argument('--out', type=Path, help='the CSV, whose rows of the same work are replaced')
    args = parser.parse_args(arguments)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no GPU here')
    args.rounds = args.rounds or (3 if args.quick else 9)
    args.shapes = args.shapes or [shape(text) for text in (['20000x80', '3000x3'] if args.quick else SHAPES)]
    args.out = args.out or (None if args.quick else BENCHMARK)
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    source = provenance(args.device)
    print(', '.join(f'{name} {value or "absent"}' for name, value in source.items()))
    wrong = 0
    for rows, classes in args.shapes:
        for dtype in args.dtypes:
            print(f'\n({rows}, {classes}) {dtype} on {args.device}', flush=True)
            case = Case.make(rows, classes, DTYPES[dtype], args.device)
            losses, problems = prepare(case, args.contenders, args.device)
            wrong += problems
            noise = Noise()
            results = list(measure(case, losses, args.rounds, args.device).values())
            say('')
            print_table(results)
            share = noise.share()
            if share is not None and share > NOISE:
                print(f'  NOISY: other processes took {share:.0%} of the processors: measure again on a quiet machine')
            if args.out:
                work = {
                    'machine': source['machine'],
                    'device': args.device,
                    'shape': f'{rows}x{classes}',
                    'dtype': dtype,
                }
                update(args.out, [{**work, **result, **source} for result in results], KEY)
    if args.out:
        print(f'\nrows written to {args.out}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
