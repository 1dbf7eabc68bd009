"""Times every variant's kernels on a GPU, forward and backward apart, with either backend; rows go into kernel_times.csv.

    python -m tools.benchmarks.kernels [--backends triton cuda] [--dtypes float32 bfloat16] [--variants NAME ...]

The work is that of variants.py, of RetinaNet's logits for 8 images of 800 x 1216 by default. A time is what the GPU's
kernels take, by CUDA's profiler, without the gaps between them and without Python. A share is the speed at which a pass
moves the bytes that it has to read and write (logits, gradients, targets, weights), in that at which a clone of the logits
moves its own: what the report of the machine code predicts (tools/kernel_analysis/report.py), measured. A variant is timed
only where its value and gradient of a 64th of the rows agree with its float64 computation on the torch backend.
"""

from tools.training import needs_mmdet  # noqa: F401

# isort: split
import argparse
import itertools
import sys
from collections.abc import Callable

import torch

import focal_plugin
from focal_plugin.math import SPECS, Spec
from tools.benchmarks import options
from tools.benchmarks.compare import Row
from tools.benchmarks.inputs import DTYPES, TOLERANCE, Inputs, Loss, problem, sets
from tools.benchmarks.measure import busy, release
from tools.benchmarks.results import KERNEL_TIMES, four_digits, update
from tools.benchmarks.variants import exact, fused, inputs_of, own

KEY = ('machine', 'shape', 'variant', 'backend', 'dtype')
DEVICE = 'cuda'
WARM_UP, PROFILED = 3, 20  # runs
SMALLER = 64  # times fewer rows are held to float64, which takes many times the memory of the logits


def passes(inputs: list[Inputs], loss: Loss) -> tuple[float, float]:
    """Milliseconds that the GPU works in a forward and in a backward."""

    def forwards(count: int) -> list[tuple[Inputs, torch.Tensor, torch.Tensor]]:
        values = [(each, each.run(loss)) for each in itertools.islice(itertools.cycle(inputs), count)]
        return [(each, value, torch.full_like(value, each.upstream)) for each, value in values]

    def backward(each: Inputs, value: torch.Tensor, upstream: torch.Tensor) -> None:
        each.clear()
        value.backward(upstream)

    for step in forwards(WARM_UP):
        backward(*step)
    values = itertools.cycle(inputs)
    forward_ms = busy([lambda: next(values).run(loss)] for _ in range(PROFILED))
    backward_ms = busy([lambda step=step: backward(*step)] for step in forwards(PROFILED))
    return forward_ms, backward_ms


def clone_rate(inputs: list[Inputs]) -> float:
    """Bytes a millisecond, read and written."""
    following = itertools.cycle(inputs)
    runs: list[list[Callable]] = [[next(following).clone] for _ in range(PROFILED)]
    rate = 2 * inputs[0].bytes / busy(runs)
    for each in inputs:
        each.clear()
    return rate


def measured(spec: Spec, shape: tuple[int, int], dtype: torch.dtype, backend: str) -> Row:
    """Figures of a variant; ValueError where its results are wrong, or the backend can't run here."""
    rows, classes = shape
    loss = fused(spec, classes, DEVICE)
    small = inputs_of(spec, max(1, rows // SMALLER), classes, DEVICE, dtype=dtype)
    right = small.double().result(exact(spec, loss))
    with focal_plugin.use_backend(backend):
        said = problem(small.result(own(loss)), right, TOLERANCE[dtype])
        if said is not None:
            raise ValueError(said)
        inputs = sets(lambda seed: inputs_of(spec, rows, classes, DEVICE, seed, dtype), DEVICE)
        forward_ms, backward_ms = passes(inputs, own(loss))
    gradient = inputs[0].bytes
    read = (inputs[0].moved - gradient) / 2
    speed = clone_rate(inputs)
    return {
        'forward_ms': four_digits(forward_ms),
        'backward_ms': four_digits(backward_ms),
        'forward_share': f'{read / forward_ms / speed:.2f}',
        'backward_share': f'{(read + gradient) / backward_ms / speed:.2f}',
    }


def run(args: argparse.Namespace) -> int:
    """Writes a row of each; gives the exit status, 1 where one is wrong."""
    source, wrong = options.begin(DEVICE), 0
    for dtype, name, backend in itertools.product(args.dtypes, args.variants, args.backends):
        key = dict(
            machine=source['machine'],
            shape='x'.join(map(str, args.shape)),
            variant=name,
            backend=backend,
            dtype=dtype,
        )
        try:
            row = measured(SPECS[name], args.shape, DTYPES[dtype], backend)
        except Exception as error:  # whatever it is, the others are timed
            wrong += 1
            print(f'  NOT TIMED: {name}, {backend}, {dtype}: {error}', flush=True)
        else:
            print('  '.join(f'{value:>12}' for value in [name, backend, dtype, *row.values()]), flush=True)
            update(args.out, [{**key, **row, **source}], KEY)
        release()
    print(f'\nrows written to {args.out}')
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    parser = options.parser(__doc__, KERNEL_TIMES)
    parser.set_defaults(device='cuda')
    parser.add_argument('--shape', type=options.shape, default=(1459224, 80), metavar='ROWSxCLASSES')
    parser.add_argument('--backends', nargs='+', choices=['triton', 'cuda'], default=['triton', 'cuda'])
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, default=['float32', 'bfloat16'])
    parser.add_argument('--variants', nargs='+', choices=SPECS, default=list(SPECS), metavar='NAME')
    args = options.parse(parser, arguments)
    if args.device == 'cpu':
        parser.error("--device cpu: times the kernels of GPUs; of a CPU's tools/benchmarks/variants.py does")
    return run(args)


if __name__ == '__main__':
    sys.exit(main())
