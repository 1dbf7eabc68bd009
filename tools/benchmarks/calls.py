"""Times small losses, where Python is what costs, called in two ways; rows go into tools/results/calls.csv.

    python -m tools.benchmarks.calls

The shapes: (3000, 3), the points of a small detector of few classes; (900, 80), the queries of DINO; (300, 80), those of
Deformable DETR. The work and its check are those of tools.benchmarks.losses, forward and backward, on the CPU. In a row, a
contender runs for 10 milliseconds before the next one takes its turn, and finds what it needs in the processor's caches. In
turns, the contenders take turns call by call, each after a pause, and find the caches as another one left them, as a loss
does in a training step. Beside them runs an autograd.Function that computes nothing, the least a loss in Python takes.
"""

import functools
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from tools.benchmarks import options
from tools.benchmarks.compare import TURN, Work, run
from tools.benchmarks.contenders import CONTENDERS, formula
from tools.benchmarks.inputs import DTYPES, TOLERANCE, detector
from tools.benchmarks.results import CALLS

NOTHING = 'a Function of nothing'

SHAPES = ((3000, 3), (900, 80), (300, 80))
WAYS = {'in a row': (TURN, 9), 'in turns': (0.0, 150)}  # milliseconds of a turn, and how many turns
LEFT_OUT = ('FusedFocalLoss (torch)',)  # which serves where a gradient of targets is wanted
DTYPE = 'float32'
KEY = ('machine', 'shape', 'called', 'contender')
COLUMNS = ('contender', 'forward_ms', 'backward_ms', 'both_ms', 'runs')


class _Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred):
        ctx.save_for_backward(torch.empty_like(pred))
        return torch.zeros(())

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient


def _nothing(pred: Tensor, *_: object) -> Tensor:
    return _Nothing.apply(pred)


def works(rounds: int | None) -> Iterator[Work]:
    """One for each shape and way of calling."""
    for shape in SHAPES:
        for called, (turn, usual) in WAYS.items():
            columns = {'shape': 'x'.join(map(str, shape)), 'called': called}
            yield Work(
                title=f'{columns["shape"]} {DTYPE}, called {called}',
                make=functools.partial(detector, *shape, DTYPES[DTYPE], 'cpu'),
                contenders={name: made for name, made in CONTENDERS.items() if name not in LEFT_OUT},
                exact=formula,
                tolerance=TOLERANCE[DTYPES[DTYPE]],
                rows=lambda rows, columns=columns: [
                    {**columns, **{name: row[name] for name in COLUMNS}} for row in rows
                ],
                references={NOTHING: _nothing},
                turn=turn,
                rounds=rounds or usual,
            )


def main(arguments: list[str] | None = None) -> int:
    parser = options.parser(__doc__, CALLS, usual='9 in a row, 150 in turns')
    args = options.parse(parser, arguments)
    if args.device != 'cpu':
        parser.error('--device cuda: tools.benchmarks.losses has small shapes on a GPU')
    return run(works(args.rounds), args, KEY)


if __name__ == '__main__':
    sys.exit(main())
