"""Times every variant beside FusedFocalLoss and mmdet's own class, in one run; rows go into tools/results/variants.csv.

The work is that of tools/benchmark.py, forward and backward of (200000, 80) float32 logits by default, with the target
that heads hand the variant most: labels, labels with a quality each, or dense values (then without a weight). On a GPU
each run takes the next inputs, four times the cache together. A variant is timed only where its value and gradient agree
with its float64 computation on the torch backend, which the tests hold to the oracle.
"""

import argparse
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import _needs_mmdet  # noqa: F401
import torch
from _cases import Case, sets
from _contenders import CannotRunError, provide_mmcv_op
from _measure import Noise
from _results import VARIANTS, provenance, update
from _turns import measure, say
from _variants import typical_arguments
from benchmark import NOISE, count, print_table, row, shape
from mmdet.registry import MODELS
from torch import Tensor

import focal_plugin
from focal_plugin import functional
from focal_plugin.losses import CLASSES, FusedFocalLoss
from focal_plugin.math import SPECS, Spec

KEY = ('machine', 'device', 'shape', 'variant')
FOCAL = 'FusedFocalLoss, labels'
TOLERANCE = 1e-4  # relative, to the value and to the largest gradient


@dataclass
class VariantCase(Case):
    """A case with the target that heads hand a variant."""

    target: Tensor | tuple[Tensor, Tensor]

    @classmethod
    def of(cls, spec: Spec, rows: int, classes: int, device: str, seed: int = 0) -> 'VariantCase':
        case = Case.make(rows, classes, torch.float32, device, seed)
        pred, labels = case.pred.detach(), case.labels
        if spec.probabilities == 'from_logits':
            pred = pred.sigmoid()
        target = labels.clamp(max=classes - 1) if spec.family == 'rowwise' else labels
        scores = torch.rand(rows, generator=torch.Generator().manual_seed(seed + 1)).to(device)
        if spec.form == 'scored':
            target = labels, scores
        if spec.form == 'dense':
            target = torch.zeros(rows, classes, device=device)
            positive = labels < classes
            target[positive, labels[positive]] = scores[positive]
        weight = None if spec.form == 'dense' else case.weight
        return cls(pred.requires_grad_(), labels, weight, case.avg_factor, target)

    @property
    def moved(self) -> int:
        target = self.target if isinstance(self.target, tuple) else (self.target,)
        read = [*target, *([] if self.weight is None else [self.weight])]
        return 3 * self.bytes + 2 * sum(each.nbytes for each in read)

    def run(self, loss) -> Tensor:
        if loss is _focal:
            return loss(self.pred, self.labels, self.weight, avg_factor=self.avg_factor)
        return loss(self.pred, self.target, weight=self.weight, avg_factor=self.avg_factor)


_focal = FusedFocalLoss()


def fused(spec: Spec, classes: int, device: str) -> torch.nn.Module:
    """The variant's class with typical arguments."""
    kind = CLASSES[spec.name]
    typical = typical_arguments(spec, classes, device)
    given = {p.name: classes for p in kind.own} | {k: v for k, v in typical.items() if k not in kind.withheld}
    loss = kind(**given).to(device)
    for name in kind.withheld:
        setattr(loss, name, typical[name])
    return loss


def problem(case: VariantCase, loss, spec: Spec) -> str | None:
    """What is wrong with the variant's result."""
    arguments = {name: getattr(loss, name) for name in spec.defaults}
    if spec.probabilities:
        arguments[spec.probabilities] = getattr(loss, spec.probabilities)
    exact_pred = case.pred.detach().double().requires_grad_()
    with focal_plugin.use_backend('torch'):
        exact = functional.FUNCTIONS[spec.name](
            exact_pred, case.target, case.weight, avg_factor=case.avg_factor, **arguments
        )
        exact.backward()
    value = case.run(loss)
    value.backward()
    off = (case.pred.grad - exact_pred.grad).abs().max() / exact_pred.grad.abs().max()
    case.pred.grad = None
    if not abs(value.item() - exact.item()) <= TOLERANCE * abs(exact.item()):
        return f'its value is {value.item():g} where {exact.item():g} is right'
    return None if off <= TOLERANCE else f'its gradient is off by {off:.2g} of the largest'


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--shape', type=shape, default=(200000, 80), metavar='ROWSxCLASSES', help='default: 200000x80')
    parser.add_argument('--variants', nargs='+', choices=SPECS, default=list(SPECS), metavar='NAME')
    parser.add_argument('--rounds', type=count, default=7, help='turns of each contender; default: %(default)s')
    parser.add_argument('--out', type=Path, default=VARIANTS, help='the CSV, whose rows of the same work are replaced')
    args = parser.parse_args(arguments)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no GPU here')
    rows, classes = args.shape
    source, wrong = provenance(args.device), 0
    print(', '.join(f'{name} {value or "absent"}' for name, value in source.items()))
    for name in args.variants:
        spec, kind = SPECS[name], CLASSES[name]
        print(f'\n{name} ({rows}, {classes}) float32 on {args.device}', flush=True)
        cases = sets(functools.partial(VariantCase.of, spec, rows, classes, args.device), args.device)
        loss = fused(spec, classes, args.device)
        said = next(filter(None, (problem(case, loss, spec) for case in cases)), None)
        if said is not None:
            wrong += 1
            print(f'  NOT TIMED: {kind.__name__}: {said}')
            continue
        losses = {kind.__name__: loss, FOCAL: _focal}
        if kind.replaces is not None:
            try:
                if args.device == 'cuda':
                    provide_mmcv_op(cases[0].pred.dtype, cases[0].pred.numel())
                losses[f'mmdet {kind.replaces}'] = MODELS.build({'type': kind.replaces}).to(args.device)
            except CannotRunError as reason:
                print(f'  left out: mmdet {kind.replaces}: {reason}')
        noise = Noise()
        measured = measure(cases, losses, args.rounds, args.device)
        measured = {name: row(cases[0], name, each) for name, each in measured.items()}
        say('')
        print_table(list(measured.values()))
        share = noise.share()
        if share is not None and share > NOISE:
            print(f'  NOISY: other processes took {share:.0%} of the processors: measure again on a quiet machine')
        ours, focal, theirs = (measured.get(n, {}) for n in (kind.__name__, FOCAL, f'mmdet {kind.replaces}'))
        result = {
            'machine': source['machine'],
            'device': args.device,
            'shape': f'{rows}x{classes}',
            'variant': name,
            'target': spec.form,
            'both_ms': ours['both_ms'],
            'focal_ms': focal['both_ms'],
            'mmdet_ms': theirs.get('both_ms', ''),
            'gpu_ms': ours['gpu_ms'],
            'mmdet_gpu_ms': theirs.get('gpu_ms', ''),
            'graph_ms': ours['graph_ms'],
            'extra_memory': ours['extra_memory'],
        }
        update(args.out, [{**result, **source}], KEY)
    print(f'\nrows written to {args.out}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
