"""Writes the tables of README.md between their markers: from the CSVs in tools/results, and from the variants' specs."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from _contenders import COMPILED, MMDET, OURS
from _results import ACCURACY, BENCHMARK, KERNELS, MAPS, ROOT, VARIANTS, read

from focal_plugin.losses import CLASSES
from focal_plugin.math import SPECS
from focal_plugin.swap import HEADS, TARGETS

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
    """Those of one architecture, a variant a line: issue slots a logit, and against the budget."""
    columns = [(dtype, kind) for dtype in ('bf16', 'fp32') for kind in ('fwd', 'bwd')]
    shown = {(row['kernel'], row['dtype']): row for row in rows if row['arch'] == 'sm_90'}
    lines = []
    for spec in SPECS:
        found = [shown[f'{spec}_{kind}', dtype] for dtype, kind in columns]
        cells = [f'{row["predicted slots/logit"]} ({row["of the budget"]} x)' for row in found]
        registers, mufu = (max(found, key=lambda row: float(row[c]))[c] for c in ('registers', 'predicted MUFU/logit'))
        lines.append([spec, *cells, mufu, registers])
    names = {'fwd': 'forward', 'bwd': 'backward'}
    header = ['sm_90', *(f'{dtype} {names[kind]}' for dtype, kind in columns), 'MUFU at most', 'registers at most']
    return markdown(header, lines)


def variants(rows: list[Row]) -> str:
    parts = []
    for (machine, shape), rows_here in groups(rows, 'machine', 'shape').items():
        header = ['variant', 'target', 'ms', 'times FusedFocalLoss', "mmdet's class, ms", "against mmdet's", 'memory']
        lines = []
        for row in rows_here:
            ours, focal, theirs = (float(row[f'{of}_ms'] or 'nan') for of in ('both', 'focal', 'mmdet'))
            against = [row['mmdet_ms'], f'{theirs / ours:.1f} x'] if row['mmdet_ms'] else ['-', '-']
            lines.append(
                [row['variant'], row['target'], row['both_ms'], f'{ours / focal:.2f}', *against, row['extra_memory']]
            )
        parts += [f'Measured on {machine}, {label(shape)} float32:', markdown(header, lines)]
    return '\n\n'.join(parts)


def maps(rows: list[Row]) -> str:
    parts = []
    for (machine, device), rows_here in groups(rows, 'machine', 'device').items():
        lines = []
        for (work,), contenders in groups(rows_here, 'work').items():
            ours, *_ = (float(row['both_ms']) for row in contenders)
            lines += [
                [
                    work,
                    row['contender'],
                    row['both_ms'],
                    f'{float(row["both_ms"]) / ours:.1f} x',
                    row['extra_memory'] or '-',
                ]
                for row in contenders
            ]
        versions = {f'torch {row["torch"]}, commit {row["commit"]}' for row in rows_here}
        parts += [
            f'Measured on {machine}, {device} ({"; ".join(sorted(versions))}), float32, forward + backward:',
            markdown(['work', 'loss', 'ms', 'of the first', 'memory, in logits'], lines),
        ]
    return '\n\n'.join(parts)


def losses() -> str:
    header = ['class', 'function', 'loss', 'paper', 'configs']
    lines = []
    for name, spec in SPECS.items():
        formula = spec.formula.replace('|', '\\|')
        paper = f'[{spec.paper}](https://arxiv.org/abs/{spec.paper})'
        configs = f'[{name}](configs/{name})'
        lines.append([f'`{CLASSES[name].__name__}`', f'`{spec.function}`', formula, paper, configs])
    return markdown(header, lines)


def replaced(text: str, name: str, table: str) -> str:
    begin, end = f'<!-- {name}:begin -->', f'<!-- {name}:end -->'
    if text.count(begin) != 1 or text.count(end) != 1:
        sys.exit(f'README.md must hold {begin} and {end} once each')
    return re.sub(f'{begin}.*{end}', lambda _: f'{begin}\n\n{table}\n\n{end}', text, flags=re.DOTALL)


def heads() -> str:
    lines = []
    for name, head in HEADS.items():
        handed = 'probabilities' if head.probabilities else 'logits'
        remarks = [f'fixed: {head.fixed}'] if head.fixed else [head.note] if head.note else []
        lines.append([f'`{name}`', handed, TARGETS[head.targets], head.activation, '; '.join(remarks)])
    return markdown(['head', 'hands over', 'target', 'activation', 'remarks'], lines)


TABLES: dict[str, Callable[[], str]] = {
    'losses': losses,
    'heads': heads,
    'benchmark': lambda: benchmark(read(BENCHMARK)),
    'variants': lambda: variants(read(VARIANTS)),
    'maps': lambda: maps(read(MAPS)),
    'accuracy': lambda: accuracy(read(ACCURACY)),
    'kernels': lambda: kernels(read(KERNELS)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--readme', type=Path, default=ROOT / 'README.md', help='default: %(default)s')
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 where the tables are out of date')
    args = parser.parse_args()
    old = new = args.readme.read_text()
    for name, table in TABLES.items():
        new = replaced(new, name, table())
    if args.check and new != old:
        print(f'{args.readme} is out of date: run python tools/readme_tables.py')
        return 1
    if not args.check:
        args.readme.write_text(new)
    return 0


if __name__ == '__main__':
    sys.exit(main())
