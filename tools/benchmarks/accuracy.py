"""Holds FusedFocalLoss and its peers to the float64 oracle at logits from -100 to 100: tools/results/accuracy.csv.

    python -m tools.benchmarks.accuracy

Relative errors of the loss and of its derivative, for positives and negatives, in float32 and float16; results below
the smallest normal number of the dtype are left out, where no relative accuracy can be had. `below` and `above` are the
logits nearest to 0, on either side, at which a contender's value or derivative is inf, NaN or off by more than 1%.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'  # read when a kernel is first imported

import focal_plugin
from tools.benchmarks.contenders import ALPHA, FORMULA, GAMMA, MMDET, OURS, CannotRunError, elementwise_formula, fused
from tools.benchmarks.results import ACCURACY, provenance, update

MMCV = "mmcv's kernel"
DTYPES = {'float32': torch.float32, 'float16': torch.float16}
KEY = ('machine', 'contender', 'dtype', 'target')
COLUMNS = [f'{of}_{what}' for of in ('value', 'grad') for what in ('error', 'below', 'above')]
WRONG = 0.01
Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(values, derivatives) of logits (N, 1) and labels."""


def differentiated(loss: Callable[[Tensor, Tensor], Tensor], device: str = 'cpu', backend: str = 'auto') -> Run:
    """Of an elementwise loss."""

    def run(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = x.to(device, copy=True).requires_grad_()
        with focal_plugin.use_backend(backend):
            value = loss(x, labels.to(device))
            value.sum().backward()
        return value.detach().cpu(), x.grad.cpu()

    return run


def mmcv(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    from tests.interop import mmcv_kernel as kernel

    return kernel.forward(x, labels, None, GAMMA, ALPHA), kernel.backward(x, labels, None, GAMMA, ALPHA)


def contenders() -> Iterator[tuple[str, Run]]:
    from mmdet.registry import MODELS

    for name, label in OURS.items():
        device = 'cuda' if name == 'triton' and torch.cuda.is_available() else 'cpu'
        suffix = ' interpreted' if name == 'triton' and device == 'cpu' else ''
        try:
            loss = fused(name, torch.empty(0, 1, device=device), reduction='none')
        except CannotRunError as reason:
            print(f'left out: {label}: {reason}')
            continue
        yield label + suffix, differentiated(loss, device, name)
    mmdet = MODELS.build({'type': 'FocalLoss', 'gamma': GAMMA, 'alpha': ALPHA, 'reduction': 'none'})
    yield MMDET, differentiated(mmdet)
    yield FORMULA, differentiated(lambda x, labels: elementwise_formula(x, (labels[:, None] == 0).to(x.dtype)))
    yield MMCV, mmcv


def judge(x: np.ndarray, got: np.ndarray, exact: np.ndarray, smallest: float) -> dict[str, str]:
    """The worst relative error, and on either side of 0 the nearest logit where it exceeds WRONG."""
    with np.errstate(all='ignore'):
        error = np.where(np.abs(exact) < smallest, 0, np.abs(got - exact) / np.abs(exact))
    # Where the exact result is too small to be held to, only inf and NaN are wrong.
    error = np.where(np.isfinite(got), error, np.abs(got))
    wrong = ~(error <= WRONG)
    below, above = x[wrong & (x < 0)], x[wrong & (x >= 0)]
    return {
        'error': f'{error.max():.2g}',
        'below': f'{below.max():.4g}' if len(below) else '',
        'above': f'{above.min():.4g}' if len(above) else '',
    }


def rows(name: str, dtype: str, run: Run) -> Iterator[dict[str, str]]:
    """One for negatives and one for positives."""
    from tests import oracle

    # 0.01 apart, as the dtype holds them.
    x = torch.linspace(-100, 100, 20001, dtype=torch.float64).to(DTYPES[dtype]).unique().unsqueeze(1)
    smallest = torch.finfo(DTYPES[dtype]).smallest_normal
    for target, label in (('negative', 1), ('positive', 0)):
        value, derivative = run(x, torch.full((len(x),), label))
        exact = oracle.focal(x, 1.0 - label, GAMMA, ALPHA)
        row = {'contender': name, 'dtype': dtype, 'target': target}
        for of, got, right in (('value', value, exact.value), ('grad', derivative, exact.grad)):
            judged = judge(x.double().numpy().ravel(), got.double().numpy().ravel(), right.ravel(), smallest)
            row |= {f'{of}_{key}': text for key, text in judged.items()}
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ACCURACY, help='the CSV, whose rows are replaced')
    args = parser.parse_args()
    if importlib.util.find_spec('pytest') is None or not shutil.which('g++'):
        sys.exit("mmcv's kernel is compiled by tests/interop/mmcv_kernel.py, which needs g++ and pytest")
    source = provenance('cpu')
    print(f'{"":36}{"dtype":9}{"target":9}', *(f'{column:12}' for column in COLUMNS))
    for name, run in contenders():
        found = [row for dtype in DTYPES for row in rows(name, dtype, run)]
        for row in found:
            print(
                f'{name:36}{row["dtype"]:9}{row["target"]:9}', *(f'{row[column]:12}' for column in COLUMNS), flush=True
            )
        update(args.out, [{'machine': source['machine'], **row, **source} for row in found], KEY)


if __name__ == '__main__':
    main()
