"""Times FusedFocalLoss and its peers on the same work, in one run; rows go into tools/results/benchmark.csv.

    python -m tools.benchmarks.losses [--device cuda]

The work: labels (1 row in 500 is positive; of a single class, as in masks, half of them), one weight per row, the sum over
avg_factor, forward and backward. A contender whose value or gradient is wrong is not timed. GB/s counts what has to move:
both passes read the logits, 8 bytes of label and 4 of weight per row, the backward writes a gradient of the logits' size; a
clone reads and writes the logits. Memory is the most that forward and backward hold beyond the logits, the gradient
included, in units of the logits' own bytes.

On a GPU runs follow one another without waiting, on inputs that together are four times the cache: a step takes the GPU's
time, or Python's where it launches more slowly than the GPU works, as for small shapes; gpu_ms is what the GPU's kernels
take of it, by CUDA's profiler, and graph_ms what a run takes where a CUDA graph replays it: the GPU's work with the gaps
between its kernels, and no Python. What does not fit into --minutes, and what needs a package that is not installed, is
left out and named. tools/plots/benchmark.py draws the rows.
"""

import argparse
import functools
import itertools
import math
import sys
from collections.abc import Iterator
from time import monotonic

import focal_plugin
from tools.benchmarks import options
from tools.benchmarks.compare import Work, run
from tools.benchmarks.contenders import CONTENDERS, formula
from tools.benchmarks.inputs import DTYPES, TOLERANCE, detector
from tools.benchmarks.results import BENCHMARK

# On a GPU: RetinaNet on COCO, 182403 anchors of an 800 x 1216 image, 8 images, then about one; ATSS on LVIS, one anchor in
# place of 9, 4 images; MaskFormer, 16 masks.
SHAPES = {
    'cpu': ['200000x80', '20000x80', '12000x1203', '3000x3'],
    'cuda': ['1459224x80', '200000x80', '81068x1203', '15564800x1'],
}
USUAL_DTYPES = {'cpu': ['float32', 'bfloat16'], 'cuda': list(DTYPES)}
MINUTES = {'cpu': math.inf, 'cuda': 7.0}
KEY = ('machine', 'device', 'shape', 'dtype', 'contender')


def works(args: argparse.Namespace) -> Iterator[Work]:
    """One for each shape and dtype; those that do not fit into the minutes are left out and named."""
    end, took, left_out = monotonic() + 60 * args.minutes, 0.0, []
    for shape, dtype in itertools.product(args.shapes, args.dtypes):
        begun = monotonic()
        if begun + took > end:  # each is taken to last as long as the one before it
            left_out.append(f'{shape} {dtype}')
            continue
        columns = {'shape': 'x'.join(map(str, shape)), 'dtype': dtype}
        yield Work(
            title=f'{shape} {dtype}',
            make=functools.partial(detector, *shape, DTYPES[dtype], args.device),
            contenders={name: CONTENDERS[name] for name in args.contenders},
            exact=formula,
            tolerance=TOLERANCE[DTYPES[dtype]],
            rows=lambda rows, columns=columns: [{**columns, **row} for row in rows],
        )
        took = monotonic() - begun
    if left_out:
        print(f'\nleft out to be done in {args.minutes:g} minutes (--minutes): {"; ".join(left_out)}')


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = options.parser(__doc__, None, usual='9, with --quick 3')
    usual = '; '.join(f'{device}: {" ".join(shapes)}' for device, shapes in SHAPES.items())
    parser.add_argument('--shapes', nargs='+', type=options.shape, metavar='ROWSxCLASSES', help=f'default, {usual}')
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, help='default: all; cpu: float32 bfloat16')
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=list(CONTENDERS), metavar='NAME')
    parser.add_argument('--minutes', type=float, help='what all may take; default: 7; cpu: what it takes')
    parser.add_argument(
        '--quick', action='store_true', help='two small shapes, 3 rounds and nothing else; only printed, without --out'
    )
    args = options.parse(parser, arguments)
    if args.device == 'cuda' and focal_plugin.backend.INTERPRETING:
        parser.error('--device cuda: TRITON_INTERPRET=1 runs the kernels in Python')
    args.rounds = args.rounds or (3 if args.quick else 9)
    args.shapes = args.shapes or [*map(options.shape, ['20000x80', '3000x3'] if args.quick else SHAPES[args.device])]
    args.dtypes = args.dtypes or USUAL_DTYPES[args.device]
    args.minutes = args.minutes or MINUTES[args.device]
    args.out = args.out or (None if args.quick else BENCHMARK)
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    return run(works(args), args, KEY)


if __name__ == '__main__':
    sys.exit(main())
