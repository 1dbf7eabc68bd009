"""Writes the tables of README.md from the CSVs in tools/results, between their markers."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from _contenders import COMPILED, MMDET, OURS
from _results import ACCURACY, BENCHMARK, KERNELS, ROOT, read

Row = dict[str, str]


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def groups(rows: list[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows with the same values in these columns, in the order of the file."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def benchmark(rows: list[Row]) -> str:
    parts = []
    for (machine, device), rows_here in groups(rows, 'machine', 'device').items():
        names = list(dict.fromkeys(row['contender'] for row in rows_here))
        fused = OURS['native' if device == 'cpu' else 'triton']
        versions = {f'torch {row["torch"]}, commit {row["commit"]}' for row in rows_here}
        parts += [
            f'Measured on {machine} ({"; ".join(sorted(versions))}). Forward + backward in milliseconds, medians:',
            speed(rows_here, names, fused),
            'Peak memory of forward + backward beyond the logits, the gradient included, in units of the logits:',
            memory(rows_here, names),
        ]
    return '\n\n'.join(parts)


def speed(rows: list[Row], names: list[str], fused: str) -> str:
    header = ['logits', 'dtype', *names, f'{fused}: GB/s', f'against {MMDET}', f'against {COMPILED}']
    lines = []
    for (shape, dtype), case in groups(rows, 'shape', 'dtype').items():
        by_name = {row['contender']: row for row in case}
        times = [by_name[name]['both_ms'] if name in by_name else '-' for name in names]
        ratios = [ratio(by_name, peer, fused) for peer in (MMDET, COMPILED)]
        rate = by_name[fused]['gb_per_s'] if fused in by_name else '-'
        lines.append([label(shape), dtype, *times, rate, *ratios])
    return markdown(header, lines)


def ratio(by_name: dict[str, Row], peer: str, fused: str) -> str:
    if peer not in by_name or fused not in by_name:
        return '-'
    return f'{float(by_name[peer]["both_ms"]) / float(by_name[fused]["both_ms"]):.1f} x'


def memory(rows: list[Row], names: list[str]) -> str:
    lines = []
    for (shape, dtype), case in groups(rows, 'shape', 'dtype').items():
        extra = {row['contender']: row['extra_memory'] for row in case if row['extra_memory']}
        if extra:
            lines.append([label(shape), dtype, *(extra.get(name, '-') for name in names)])
    return markdown(['logits', 'dtype', *names], lines)


def label(shape: str) -> str:
    return f'({shape.replace("x", ", ")})'


def accuracy(rows: list[Row]) -> str:
    parts = []
    for (machine,), rows_here in groups(rows, 'machine').items():
        header = ['', 'dtype', 'loss: worst error', 'loss: off by over 1%', 'gradient: worst error']
        header.append('gradient: off by over 1%')
        lines = []
        for (name, dtype), (negative, positive) in groups(rows_here, 'contender', 'dtype').items():
            pairs = [
                f'{cell(negative, of)} / {cell(positive, of)}'
                for of in ('value', 'grad')
                for cell in (error, off_beyond)
            ]
            lines.append([name, dtype, *pairs])
        parts += [
            f'Measured on {machine}; negatives / positives, relative to the exact result:',
            markdown(header, lines),
        ]
    return '\n\n'.join(parts)


def error(row: Row, of: str) -> str:
    return row[f'{of}_error']


def off_beyond(row: Row, of: str) -> str:
    """Beyond which logits a contender is off."""
    below, above = row[f'{of}_below'], row[f'{of}_above']
    text = [f'below {below}'] * bool(below) + [f'above {above}'] * bool(above)
    return ', '.join(text) or 'nowhere'


def kernels(rows: list[Row]) -> str:
    return markdown(rows[0], (row.values() for row in rows))


def replaced(text: str, name: str, table: str) -> str:
    begin, end = f'<!-- {name}:begin -->', f'<!-- {name}:end -->'
    if text.count(begin) != 1 or text.count(end) != 1:
        sys.exit(f'README.md must hold {begin} and {end} once each')
    return re.sub(f'{begin}.*{end}', lambda _: f'{begin}\n\n{table}\n\n{end}', text, flags=re.DOTALL)


TABLES: dict[str, tuple[Path, Callable[[list[Row]], str]]] = {
    'benchmark': (BENCHMARK, benchmark),
    'accuracy': (ACCURACY, accuracy),
    'kernels': (KERNELS, kernels),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--readme', type=Path, default=ROOT / 'README.md', help='default: %(default)s')
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 where the tables are out of date')
    args = parser.parse_args()
    old = new = args.readme.read_text()
    for name, (path, table) in TABLES.items():
        new = replaced(new, name, table(read(path)))
    if args.check and new != old:
        print(f'{args.readme} is out of date: run python tools/readme_tables.py')
        return 1
    if not args.check:
        args.readme.write_text(new)
    return 0


if __name__ == '__main__':
    sys.exit(main())
