"""Times every variant beside FusedFocalLoss and mmdet's own class, in one run; rows go into tools/results/variants.csv.

    python -m tools.benchmarks.variants [--device cuda]

The work is that of losses.py, forward and backward of (200000, 80) float32 logits by default, with the target that heads
hand the variant most: labels, labels with a quality each, or dense values (then without a weight). On a GPU each run takes
the next inputs, four times the cache together. A variant is timed only where its value and gradient agree with its float64
computation on the torch backend, which the tests hold to the oracle.
"""

from tools.training import needs_mmdet  # noqa: F401

# isort: split
import argparse
import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch
from mmdet.registry import MODELS

import focal_plugin
from focal_plugin import functional
from focal_plugin.losses import CLASSES, FusedFocalLoss
from focal_plugin.math import SPECS, Spec
from tools.benchmarks import options
from tools.benchmarks.compare import Work, run
from tools.benchmarks.contenders import CannotRunError, provide_mmcv_op
from tools.benchmarks.inputs import Inputs, Loss, detector, typical_arguments
from tools.benchmarks.results import VARIANTS

KEY = ('machine', 'device', 'shape', 'variant')
FOCAL, THEIRS = 'FusedFocalLoss, labels', "mmdet's class"
TOLERANCE = 1e-4, 1e-4  # relative, to the value and to the largest gradient


def inputs_of(
    spec: Spec, rows: int, classes: int, device: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Inputs:
    """Logits, (the target that heads hand the variant, weight, avg_factor), labels and weight of FusedFocalLoss."""
    each = detector(rows, classes, dtype, device, seed)
    (pred,), (labels, weight, avg_factor) = each.logits, each.rest
    if spec.probabilities == 'from_logits':
        pred = pred.detach().sigmoid().requires_grad_()
    scores = torch.rand(rows, generator=torch.Generator().manual_seed(seed + 1)).to(device)
    if spec.form == 'dense':
        target = torch.zeros(rows, classes, dtype=dtype, device=device)
        positive = labels < classes
        target[positive, labels[positive]] = scores[positive].to(dtype)
    elif spec.form == 'scored':
        target = labels, scores
    else:
        target = labels.clamp(max=classes - 1) if spec.family == 'rowwise' else labels
    rest = target, None if spec.form == 'dense' else weight, avg_factor
    return Inputs([pred], rest, of_references=(labels, weight))


def own(loss: Loss) -> Loss:
    """A variant's, as it is called."""
    return lambda pred, target, weight, avg_factor, *_: loss(pred, target, weight=weight, avg_factor=avg_factor)


def of_labels(loss: Loss) -> Loss:
    return lambda pred, _target, _weight, avg_factor, *rest: loss(pred, *rest, avg_factor=avg_factor)


def fused(spec: Spec, classes: int, device: str) -> torch.nn.Module:
    """The variant's class with typical arguments."""
    kind = CLASSES[spec.name]
    typical = typical_arguments(spec, classes, device)
    given = {p.name: classes for p in kind.extra_parameters} | {
        k: v for k, v in typical.items() if k not in kind.withheld
    }
    loss = kind(**given).to(device)
    for name in kind.withheld:
        setattr(loss, name, typical[name])
    return loss


def exact(spec: Spec, loss: torch.nn.Module) -> Loss:
    """The function with the arguments of the class, on the torch backend."""
    arguments = {name: getattr(loss, name) for name in spec.defaults}
    if spec.probabilities:
        arguments[spec.probabilities] = getattr(loss, spec.probabilities)
    function = functools.partial(functional.FUNCTIONS[spec.name], **arguments)

    def call(pred, target, weight, avg_factor, *_):
        with focal_plugin.use_backend('torch'):
            return function(pred, target, weight, avg_factor=avg_factor)

    return call


def works(args: argparse.Namespace) -> Iterator[Work]:
    for name in args.variants:
        spec, kind = SPECS[name], CLASSES[name]
        loss, references = fused(spec, args.shape[1], args.device), {FOCAL: of_labels(FusedFocalLoss())}
        if kind.replaces is not None:
            try:
                provide_mmcv_op(torch.empty(0, device=args.device))
                references[THEIRS] = own(MODELS.build({'type': kind.replaces}).to(args.device))
            except CannotRunError as reason:
                print(f'\nleft out: mmdet {kind.replaces}: {reason}')
        head = {'shape': 'x'.join(map(str, args.shape)), 'variant': name, 'target': spec.form}
        yield Work(
            title=f'{name} {args.shape} float32',
            make=functools.partial(inputs_of, spec, *args.shape, args.device),
            contenders={kind.__name__: lambda pred, loss=loss: own(loss)},
            exact=exact(spec, loss),
            tolerance=TOLERANCE,
            rows=lambda rows, head=head, name=kind.__name__: [
                head | columns(row, rows) for row in rows if row['contender'] == name
            ],
            references=references,
        )


def columns(ours: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Those of the variant's row, beside FusedFocalLoss and mmdet's class."""
    focal, theirs = (next((row for row in rows if row['contender'] == name), {}) for name in (FOCAL, THEIRS))
    return {
        'both_ms': ours['both_ms'],
        'focal_ms': focal['both_ms'],
        'mmdet_ms': theirs.get('both_ms', ''),
        'gpu_ms': ours['gpu_ms'],
        'mmdet_gpu_ms': theirs.get('gpu_ms', ''),
        'graph_ms': ours['graph_ms'],
        'extra_memory': ours['extra_memory'],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = options.parser(__doc__, VARIANTS, rounds=7)
    parser.add_argument(
        '--shape', type=options.shape, default=(200000, 80), metavar='ROWSxCLASSES', help='default: 200000x80'
    )
    parser.add_argument('--variants', nargs='+', choices=SPECS, default=list(SPECS), metavar='NAME')
    args = options.parse(parser, arguments)
    return run(works(args), args, KEY)


if __name__ == '__main__':
    sys.exit(main())
