"""Writes the tables of README.md between their markers: from the CSVs in tools/results, and from the variants' specs."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from focal_plugin.math import SPECS
from tools.benchmarks.contenders import COMPILED, MMDET, OURS, is_ours
from tools.benchmarks.results import (
    ACCURACY,
    BENCHMARK,
    BYTES,
    KERNELS,
    MAPS,
    ROOT,
    TRAINING,
    TRITON_VERSIONS,
    VARIANTS,
    read,
)

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
        backend = 'native' if device == 'cpu' else 'triton'
        fused = next((name for name in names if is_ours(name, backend)), OURS[backend])
        compilers = ['torch'] if device == 'cpu' else ['torch', 'triton']
        versions = {', '.join(f'{name} {row[name]}' for name in [*compilers, 'commit']) for row in rows_here}
        parts += [
            f'Measured on {machine} ({"; ".join(sorted(versions))}). Forward + backward in milliseconds, medians:',
            speed(rows_here, names, fused),
            *work(rows_here, names, 'gpu_ms', "Of that the GPU's own work, in milliseconds:"),
            *work(rows_here, names, 'graph_ms', 'Replayed by a CUDA graph, in milliseconds:'),
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


def work(rows: list[Row], names: list[str], column: str, title: str) -> list[str]:
    """What a run takes without Python, where that was measured."""
    found = []
    for (shape, dtype), case in groups(rows, 'shape', 'dtype').items():
        times = {row['contender']: row.get(column) or '-' for row in case}
        found.append([label(shape), dtype, *(times.get(name, '-') for name in names)])
    if all(time == '-' for line in found for time in line[2:]):
        return []
    return [title, markdown(['logits', 'dtype', *names], found)]


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


def training(rows: list[Row]) -> str:
    parts = []
    for (machine, work), rows_here in groups(rows, 'machine', 'work').items():
        names = list(dict.fromkeys(row['contender'] for row in rows_here))
        lines = []
        for (precision,), steps in groups(rows_here, 'precision').items():
            cells = {row['contender']: f'{row["step_ms"]} ms, {row["extra_mib"] or "?"} MiB' for row in steps}
            lines.append([precision, *(cells.get(name, '-') for name in names)])
        parts += [
            f'A training step of {work} on {machine}; the memory is its peak beyond weights, momentum and images:',
            markdown(['precision', *names], lines),
        ]
    return '\n\n'.join(parts)


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
    """A variant a line: issue slots a logit and the share of the memory roofline on one card, the least of it on another."""
    columns = [(dtype, kind) for dtype in ('bf16', 'fp32') for kind in ('fwd', 'bwd')]
    share = 'predicted share of the memory roofline'
    rows = [row for row in rows if row['classes'] == '80']
    shown, other = (
        {(row['kernel'], row['dtype']): row for row in rows if row['card'] == card}
        for card in ('H100 SXM', 'A100 80GB SXM')
    )
    lines = []
    for name in [*SPECS, 'mmcv']:
        keys = [(f'{name}_{kind}', dtype) for dtype, kind in columns]
        found = [shown[key] for key in keys if key in shown]
        cells = [
            f'{float(shown[key]["predicted slots/logit"]):.3g} ({shown[key][share]})' if key in shown else '-'
            for key in keys
        ]
        mufu = max(float(row['predicted MUFU/logit']) for row in found)
        registers = max((row['registers'] for row in found), key=lambda count: int(count or 0))
        least = min(other[key][share] for key in keys if key in other)
        lines.append([name, *cells, f'{mufu:.3g}', registers or '-', least])
    names = {'fwd': 'forward', 'bwd': 'backward'}
    header = ['H100', *(f'{dtype} {names[kind]}' for dtype, kind in columns)]
    return markdown([*header, 'MUFU at most', 'registers at most', 'A100 80 GB, least share'], lines)


def moved(rows: list[Row]) -> str:
    """Bytes a logit of whole losses; the first of a work and of a width of logits is what the others are compared with."""
    lines = []
    for row in (row for row in rows if row['op'] == 'total'):
        peers = [peer for peer in rows if (peer['work'], peer['op']) == (row['work'], 'total')]
        first = next(peer for peer in peers if (peer['dtype'] == 'float32') == (row['dtype'] == 'float32'))
        ratio = float(first['bytes_per_logit']) / float(row['bytes_per_logit'])
        lines.append(
            [row['work'], row['path'], row['dtype'], row['bytes_per_logit'], row['of_logits'], f'{ratio:.1f} x']
        )
    header = ['from', 'loss', 'dtype', 'bytes a logit', 'of logits and gradients', 'mmdet + mmcv moves']
    return markdown(header, lines)


def triton_versions(rows: list[Row]) -> str:
    """Those of a version in one line: how many kernels compile for each architecture, and why others don't."""
    archs = list(dict.fromkeys(row['arch'] for row in rows))
    tested = 'self-test, interpreted'
    lines = []
    for (version, verdict), rows_here in groups(rows, 'triton', tested).items():
        cells = {row['arch']: ': '.join(filter(None, (of_all(row), row['failed']))) for row in rows_here}
        lines.append(
            [version, *(cells.get(arch, '-') for arch in archs), verdict if verdict == 'passes' else 'refused']
        )
    return markdown(['Triton', *archs, tested], lines)


def of_all(row: Row) -> str:
    return f'{row["compiled"]} of {row["kernels"]}'


def variants(rows: list[Row]) -> str:
    parts = []
    for (machine, shape), rows_here in groups(rows, 'machine', 'shape').items():
        header = ['variant', 'target', 'ms', 'times FusedFocalLoss', "mmdet's class, ms", "against mmdet's", 'memory']
        on_gpu = any(row.get('gpu_ms') for row in rows_here)
        header += ["the GPU's work, ms", "of mmdet's class"] * on_gpu
        lines = []
        for row in rows_here:
            ours, focal, theirs = (float(row[f'{of}_ms'] or 'nan') for of in ('both', 'focal', 'mmdet'))
            against = [row['mmdet_ms'], f'{theirs / ours:.1f} x'] if row['mmdet_ms'] else ['-', '-']
            by_gpu = [row.get('gpu_ms', ''), row.get('mmdet_gpu_ms') or '-'] * on_gpu
            lines.append(
                [
                    row['variant'],
                    row['target'],
                    row['both_ms'],
                    f'{ours / focal:.2f}',
                    *against,
                    row['extra_memory'],
                    *by_gpu,
                ]
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
                    *[row.get('gpu_ms', '')] * (device == 'cuda'),
                ]
                for row in contenders
            ]
        versions = {f'torch {row["torch"]}, commit {row["commit"]}' for row in rows_here}
        parts += [
            f'Measured on {machine}, {device} ({"; ".join(sorted(versions))}), float32, forward + backward:',
            markdown(
                [
                    'work',
                    'loss',
                    'ms',
                    'of the first',
                    'memory, in logits',
                    *["the GPU's work, ms"] * (device == 'cuda'),
                ],
                lines,
            ),
        ]
    return '\n\n'.join(parts)


def losses() -> str:
    from focal_plugin.losses import CLASSES

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
    from focal_plugin.check_swap.pairing import HEADS, TARGETS

    lines = []
    for name, head in HEADS.items():
        handed = 'probabilities' if head.probabilities else 'logits'
        remarks = [f'fixed: {head.fixed}'] if head.fixed else [head.note] if head.note else []
        lines.append([f'`{name}`', handed, TARGETS[head.targets], head.activation, '; '.join(remarks)])
    return markdown(['head', 'hands over', 'target', 'activation', 'remarks'], lines)


def of(device: str, path: Path) -> list[Row]:
    return [row for row in read(path) if row['device'] == device]


TABLES: dict[str, Callable[[], str]] = {
    'losses': losses,
    'heads': heads,
    'benchmark': lambda: benchmark(of('cpu', BENCHMARK)),
    'benchmark_gpu': lambda: '\n\n'.join([benchmark(of('cuda', BENCHMARK)), training(of('cuda', TRAINING))]),
    'variants': lambda: variants(read(VARIANTS)),
    'maps': lambda: maps(of('cpu', MAPS)),
    'maps_gpu': lambda: maps(of('cuda', MAPS)),
    'accuracy': lambda: accuracy(read(ACCURACY)),
    'kernels': lambda: kernels(read(KERNELS)),
    'bytes': lambda: moved(read(BYTES)),
    'triton_versions': lambda: triton_versions(read(TRITON_VERSIONS)),
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
        print(f'{args.readme} is out of date: run python -m tools.maintain.readme_tables')
        return 1
    if not args.check:
        args.readme.write_text(new)
    return 0


if __name__ == '__main__':
    sys.exit(main())
