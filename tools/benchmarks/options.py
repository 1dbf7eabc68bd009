"""The options that the benchmarks share, and what they print before they begin."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from tools.benchmarks.results import provenance

BUSY = 0.3  # processes that run beside a benchmark: above, its figures are not to be trusted


def parser(description: str, out: Path | None, rounds: int | None = None, usual: str = '') -> argparse.ArgumentParser:
    """One that knows --device, --out and, where contenders take turns, --rounds."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    made.add_argument('--out', type=Path, default=out, help='the CSV, whose rows of the same work are replaced')
    if rounds or usual:
        help = f'turns of each contender; default: {usual or rounds}'
        made.add_argument('--rounds', type=_count, default=rounds, help=help)
    return made


def parse(made: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    args = made.parse_args(arguments)
    if args.device == 'cuda' and not torch.cuda.is_available():
        made.error('--device cuda: torch sees no GPU here')
    return args


def begin(device: str) -> dict[str, str]:
    """The provenance, which is printed, with a warning where others use the processors."""
    source = provenance(device)
    print(', '.join(f'{name} {value or "absent"}' for name, value in source.items()))
    if (busy := os.getloadavg()[0]) > BUSY:
        print(f'NOISY: {busy:.1f} processes ran in the last minute: measure on a quiet machine')
    return source


def shape(text: str) -> tuple[int, int]:
    """Of an argument."""
    rows, _, classes = text.partition('x')
    if not (rows.isdigit() and classes.isdigit() and int(rows) and int(classes)):
        raise argparse.ArgumentTypeError(f'a shape is ROWSxCLASSES, such as 20000x80, got {text!r}')
    return int(rows), int(classes)


def _count(text: str) -> int:
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f'a number of rounds is at least 1, got {text!r}')
    return int(text)
