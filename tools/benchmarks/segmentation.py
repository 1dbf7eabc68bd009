"""Times mmsegmentation's FocalLoss and ours on the maps of a decode head; rows go into tools/results/maps.csv.

    python -m tools.maintain.hosts --run tools.benchmarks.segmentation

Logits are (4, 150, 512, 512) float32, labels (4, 512, 512) with a tenth ignored. mmseg's is given its labels as a float
one-hot and a weight, both made before: on a CPU its own one-hot of labels is an error. Each is timed, forward and backward,
only where value and gradient agree on a part of the maps.
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmseg.models.losses import FocalLoss
from torch import Tensor, nn

from focal_plugin.segmentation import FusedSegFocalLoss
from tools.benchmarks import measure
from tools.benchmarks.results import MAPS, four_digits, provenance, table, update

KEY = ('machine', 'device', 'work', 'contender')
IGNORED, PART, RUNS = 255, 32, 7
Step = Callable[[], tuple[Tensor, Tensor]]


def step(loss: nn.Module, logits: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(logits, *targets)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def contenders(logits: Tensor, labels: Tensor) -> dict[str, Step]:
    classes, ignored = logits.size(1), labels == IGNORED
    one_hot = torch.zeros_like(logits).scatter_(1, labels.masked_fill(ignored, 0).unsqueeze(1), 1.0)
    per_class = dict(alpha=[0.5] * classes, gamma=[2.0] * classes)
    logits.requires_grad_()
    return {
        'FusedSegFocalLoss': functools.partial(step, FusedSegFocalLoss(), logits, labels),
        'FusedSegFocalLoss, per class': functools.partial(step, FusedSegFocalLoss(**per_class), logits, labels),
        'mmseg FocalLoss': functools.partial(step, FocalLoss(), logits, one_hot, (~ignored).float().flatten()),
    }


def row(name: str, run: Step, logits: Tensor) -> dict:
    peak = measure.peak_bytes('cpu', run)
    # What takes seconds varies less, and there is less time for it.
    first = measure.timed_runs('cpu', [[run]])[0][0]
    times = measure.timed_runs('cpu', ([run] for _ in range(RUNS if first < 3000 else 2)))
    return {
        'contender': name,
        'both_ms': four_digits(statistics.median(time for (time,) in times)),
        'extra_memory': '' if peak is None else f'{peak / (logits.numel() * logits.element_size()):.3g}',
        'runs': len(times),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=MAPS, help='the CSV that gets the rows; default: %(default)s')
    parser.add_argument('--shape', type=int, nargs=4, default=(4, 150, 512, 512), metavar=('B', 'C', 'H', 'W'))
    args = parser.parse_args(arguments)
    shape = args.shape
    torch.manual_seed(0)
    logits = torch.randn(shape).sub_(2)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]))
    labels[:, : shape[2] // 10] = IGNORED
    part = [each[..., :PART, :PART].contiguous() for each in (logits, labels)]
    right, *others = (run() for run in contenders(*part).values())
    for other in others:
        torch.testing.assert_close(right, other, rtol=1e-5, atol=1e-10)
    work = f'FCN of mmseg, ({", ".join(map(str, shape))}) maps'
    common = {**provenance('cpu'), 'device': 'cpu', 'work': work}
    rows = [common | row(name, run, logits) for name, run in contenders(logits, labels).items()]
    update(args.out, rows, KEY)
    print(table(rows))


if __name__ == '__main__':
    main()
