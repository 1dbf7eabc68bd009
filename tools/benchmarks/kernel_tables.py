"""The tables of GPU kernels, predicted from their machine code and measured, in Markdown, from their CSV files."""

from focal_plugin.math import SPECS
from tools.benchmarks.tables import Row, groups, label, markdown, sources

BACKENDS = ('triton', 'cuda')
SHARE = 'predicted share of the memory roofline'
PASSES = (('forward', 'fwd'), ('backward', 'bwd'))
CARDS = {'NVIDIA H100 80GB HBM3': 'H100 SXM'}  # as PyTorch names them, as the report does


def predicted(rows: list[Row]) -> str:
    """What the machine code says: a table for each GPU backend."""
    parts = []
    for backend in BACKENDS:
        counted = [row for row in rows if row['backend'] in (backend, '')]  # and mmcv's kernel
        parts += [f'The {backend} backend:', of_backend(counted)]
    return '\n\n'.join(parts)


def of_backend(rows: list[Row]) -> str:
    """A line per variant: issue slots per logit and the share of the memory roofline on one card, the least on another."""
    slots = 'predicted slots/logit'
    shown, other = (
        {(row['kernel'], row['dtype']): row for row in rows if (row['card'], row['classes']) == (card, '80')}
        for card in ('H100 SXM', 'A100 80GB SXM')
    )
    columns = {(dtype, kind): f'{dtype} {name}' for dtype in ('bf16', 'fp32') for name, kind in PASSES}
    lines = []
    for name in [*SPECS, 'mmcv']:
        found = {column: shown.get((f'{name}_{column[1]}', column[0])) for column in columns}
        cells = [f'{float(row[slots]):.3g} ({row[SHARE]})' if row else '-' for row in found.values()]
        counted = list(filter(None, found.values()))
        if not counted:  # it is newer than the report
            continue
        mufu = max(float(row['predicted MUFU/logit']) for row in counted)
        registers = max((row['registers'] for row in counted), key=lambda count: int(count or 0))
        least = min(other[row['kernel'], row['dtype']][SHARE] for row in counted)
        lines.append([name, *cells, f'{mufu:.3g}', registers or '-', least])
    header = ['H100', *columns.values(), 'MUFU at most', 'registers at most', 'A100 80 GB, least share']
    return markdown(header, lines)


def measured(rows: list[Row], report: list[Row]) -> str:
    """A table for each GPU backend: times, measured shares of the memory's speed, and in brackets the predicted ones."""
    parts = []
    for (machine, shape, backend), rows_here in groups(rows, 'machine', 'shape', 'backend').items():
        predictions = {
            (row['kernel'], row['dtype']): row[SHARE]
            for row in report
            if (row['card'], row['classes'], row['backend']) == (CARDS.get(machine), '80', backend)
        }
        times = {(row['variant'], row['dtype']): row for row in rows_here}
        lines = []
        for name in SPECS:
            cells = []
            for dtype, short in (('bfloat16', 'bf16'), ('float32', 'fp32')):
                for kind, of in PASSES:
                    row, predicted = times.get((name, dtype)), predictions.get((f'{name}_{of}', short), '-')
                    cells.append(f'{row[f"{kind}_ms"]} ms, {row[f"{kind}_share"]} ({predicted})' if row else '-')
            lines.append([name, *cells])
        header = [f'{dtype} {kind}' for dtype in ('bfloat16', 'float32') for kind, _ in PASSES]
        parts += [
            f'The {backend} backend, measured on {machine} ({sources(rows_here)}), {label(shape)}:',
            markdown(['', *header], lines),
        ]
    return '\n\n'.join(parts)
