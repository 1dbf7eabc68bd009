"""The tables of measured and predicted results, in Markdown, from the rows of their CSV files."""

from collections.abc import Iterable

from tools.benchmarks.contenders import COMPILED, MMDET, OURS

Row = dict[str, str]


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


PEERS = (MMDET, COMPILED)  # that ours is compared with


def groups(rows: list[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows with the same values in these columns, in the order of the file."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def label(shape: str) -> str:
    return f'({shape.replace("x", ", ")})'


def sources(rows: list[Row]) -> str:
    """What was measured on a CPU, and with what."""
    return '; '.join(sorted({f'torch {row["torch"]}, commit {row["commit"]}' for row in rows}))


def times(of: str, against: str) -> str:
    """How many times as long the second takes."""
    return f'{float(against) / float(of):.1f} x'


def benchmark(rows: list[Row]) -> str:
    """FusedFocalLoss and its peers: time, the GPU's own work, a graph's replay, memory."""
    parts = []
    for (machine, device), rows_here in groups(rows, 'machine', 'device').items():
        names = list(dict.fromkeys(row['contender'] for row in rows_here))
        compilers = ['torch'] if device == 'cpu' else ['torch', 'triton']
        versions = {', '.join(f'{name} {row[name]}' for name in [*compilers, 'commit']) for row in rows_here}
        backend = 'native' if device == 'cpu' else 'triton'
        # Whichever of class and function could be timed.
        fused = next((name for name in names if name.endswith(f'({backend})')), OURS[backend])
        parts += [
            f'Measured on {machine} ({"; ".join(sorted(versions))}). Forward + backward in milliseconds, medians:',
            speed(rows_here, names, fused),
            *of_contenders("Of that the GPU's own work, in milliseconds:", rows_here, names, 'gpu_ms'),
            *of_contenders('Replayed by a CUDA graph, in milliseconds:', rows_here, names, 'graph_ms'),
            *of_contenders(
                'Peak memory of forward + backward beyond the logits, the gradient included, in units of the logits:',
                rows_here,
                names,
                'extra_memory',
            ),
        ]
    return '\n\n'.join(parts)


def speed(rows: list[Row], names: list[str], fused: str) -> str:
    lines = []
    for (shape, dtype), case in groups(rows, 'shape', 'dtype').items():
        ms = {row['contender']: row['both_ms'] for row in case}
        rate = {row['contender']: row['gb_per_s'] for row in case}
        ratios = [times(ms[fused], ms[peer]) if {fused, peer} <= ms.keys() else '-' for peer in PEERS]
        lines.append([label(shape), dtype, *(ms.get(name, '-') for name in names), rate.get(fused, '-'), *ratios])
    return markdown(['logits', 'dtype', *names, f'{fused}: GB/s', *(f'against {peer}' for peer in PEERS)], lines)


def calls(rows: list[Row]) -> str:
    """Small losses on a CPU in microseconds, by the way of calling them."""
    parts = []
    for (machine,), rows_here in groups(rows, 'machine').items():
        names = list(dict.fromkeys(row['contender'] for row in rows_here))
        lines = []
        for (shape, called), case in groups(rows_here, 'shape', 'called').items():
            ms = {row['contender']: row['both_ms'] for row in case}
            cells = [f'{1e3 * float(ms[name]):.0f}' if name in ms else '-' for name in names]
            lines.append([label(shape), called, *cells, *(times(ms[OURS['native']], ms[peer]) for peer in PEERS)])
        header = ['logits', 'called', *names, *(f'against {peer}' for peer in PEERS)]
        parts += [
            f'Measured on {machine} ({sources(rows_here)}), float32, forward + backward in microseconds, medians:',
            markdown(header, lines),
        ]
    return '\n\n'.join(parts)


def of_contenders(title: str, rows: list[Row], names: list[str], column: str) -> list[str]:
    """A column of the CSV with a line per shape and dtype; nothing where nothing was measured."""
    lines = []
    for (shape, dtype), case in groups(rows, 'shape', 'dtype').items():
        cells = {row['contender']: row.get(column) for row in case}
        if any(cells.values()):
            lines.append([label(shape), dtype, *(cells.get(name) or '-' for name in names)])
    return [title, markdown(['logits', 'dtype', *names], lines)] if lines else []


def training(rows: list[Row]) -> str:
    parts = []
    for (machine, work), rows_here in groups(rows, 'machine', 'work').items():
        names = list(dict.fromkeys(row['contender'] for row in rows_here))
        lines = []
        for (precision,), steps in groups(rows_here, 'precision').items():
            cells = {row['contender']: f'{milliseconds(row)}, {row["extra_mib"] or "?"} MiB' for row in steps}
            lines.append([precision, *(cells.get(name, '-') for name in names)])
        parts += [
            f'A training step of {work} on {machine}, and what of it the GPU works; the memory is its peak beyond weights, '
            'momentum and images:',
            markdown(['precision', *names], lines),
        ]
    return '\n\n'.join(parts)


def steps(rows: list[Row]) -> str:
    """Whole training steps on a CPU: time, memory, and what of the time is the class loss's."""
    parts = []
    for (machine,), rows_here in groups(rows, 'machine').items():
        names = list(dict.fromkeys(row['contender'] for row in rows_here))
        lines = []
        for (work,), cases in groups(rows_here, 'work').items():
            cells = {}
            for row in cases:
                share = f' (loss {row["loss_ms"]} ms)' if row['loss_ms'] else ''
                cells[row['contender']] = f'{row["step_ms"]} ms, {row["extra_mib"] or "?"} MiB{share}'
            lines.append([work, *(cells.get(name, '-') for name in names)])
        parts += [f'Measured on {machine}, medians:', markdown(['detector', *names], lines)]
    return '\n\n'.join(parts)


def milliseconds(row: Row) -> str:
    """A time, and in brackets what of it the GPU works, where that was measured."""
    return f'{row["step_ms"]} ms' + (f' ({row["gpu_ms"]})' if row.get('gpu_ms') else '')


def variants(rows: list[Row]) -> str:
    """Each variant beside FusedFocalLoss and mmdet's own class."""
    parts = []
    for (machine, shape), rows_here in groups(rows, 'machine', 'shape').items():
        on_gpu = any(row.get('gpu_ms') for row in rows_here)
        lines = []
        for row in rows_here:
            ours, theirs = row['both_ms'], row['mmdet_ms']
            of_focal = f'{float(ours) / float(row["focal_ms"]):.2f}'
            against = [theirs, times(ours, theirs)] if theirs else ['-', '-']
            by_gpu = [row.get('gpu_ms', ''), row.get('mmdet_gpu_ms') or '-'] * on_gpu
            lines.append([row['variant'], row['target'], ours, of_focal, *against, row['extra_memory'], *by_gpu])
        header = ['variant', 'target', 'ms', 'times FusedFocalLoss', "mmdet's class, ms", "against mmdet's", 'memory']
        header += ["the GPU's work, ms", "of mmdet's class"] * on_gpu
        parts += [f'Measured on {machine}, {label(shape)} float32:', markdown(header, lines)]
    return '\n\n'.join(parts)


def maps(rows: list[Row]) -> str:
    """Heads on their maps; the first contender of a work is what the others are compared with."""
    parts = []
    for (machine, device), rows_here in groups(rows, 'machine', 'device').items():
        on_gpu = device == 'cuda'
        lines = []
        for (work,), contenders in groups(rows_here, 'work').items():
            for row in contenders:
                of_first = times(contenders[0]['both_ms'], row['both_ms'])
                by_gpu = [row.get('gpu_ms', '')] * on_gpu
                lines.append([work, row['contender'], row['both_ms'], of_first, row['extra_memory'] or '-', *by_gpu])
        header = ['work', 'loss', 'ms', 'of the first', 'memory, in logits', *["the GPU's work, ms"] * on_gpu]
        parts += [
            f'Measured on {machine}, {device} ({sources(rows_here)}), float32, forward + backward:',
            markdown(header, lines),
        ]
    return '\n\n'.join(parts)


def cut(rows: list[Row]) -> str:
    """Class convolution and loss with the class logits and without; times beside those of the head that copies none."""
    parts = []
    for (machine, device), rows_here in groups(rows, 'machine', 'device').items():
        lines, on_gpu = [], device == 'cuda'
        columns = ('both_ms', 'gpu_ms') if on_gpu else ('both_ms',)
        memory = ('allocated_mb',) if on_gpu else ('allocated_mb', 'process_mb')
        for (work, logits), contenders in groups(rows_here, 'work', 'logits_mb').items():
            copying_none = next((row for row in contenders if row['contender'] == 'FusedRetinaHead'), {})
            for row in contenders:
                cells = []
                for column in columns:
                    time, least = row[column], copying_none.get(column)
                    cells += [time or '-', f'{float(time) / float(least):.2f}' if time and least else '-']
                cells += [row[column] or '-' for column in memory]
                lines.append([f'{work}, {logits} MB of logits', row['contender'], *cells])
        header = ['work', 'head', 'ms', 'times FusedRetinaHead', *["the GPU's work, ms", 'times its'] * on_gpu]
        header += ["MB, PyTorch's allocator", 'MB, the process'][: len(memory)]
        parts += [
            f'Measured on {machine}, {device} ({sources(rows_here)}), float32, forward + backward:',
            markdown(header, lines),
        ]
    return '\n\n'.join(parts)


def accuracy(rows: list[Row]) -> str:
    parts = []
    for (machine,), rows_here in groups(rows, 'machine').items():
        lines = []
        for (name, dtype), pair in groups(rows_here, 'contender', 'dtype').items():
            cells = []
            for of in ('value', 'grad'):
                cells += [' / '.join(row[f'{of}_error'] for row in pair), ' / '.join(off(row, of) for row in pair)]
            lines.append([name, dtype, *cells])
        columns = [f'{of}: {what}' for of in ('loss', 'gradient') for what in ('worst error', 'off by over 1%')]
        parts.append(f'Measured on {machine}; negatives / positives, relative to the exact result:')
        parts.append(markdown(['', 'dtype', *columns], lines))
    return '\n\n'.join(parts)


def off(row: Row, of: str) -> str:
    """Beyond which logits a contender is off."""
    ends = [f'{side} {row[f"{of}_{side}"]}' for side in ('below', 'above') if row[f'{of}_{side}']]
    return ', '.join(ends) or 'nowhere'


def moved(rows: list[Row]) -> str:
    """Bytes of whole losses; the first of a work and of a width of logits is what the others are compared with."""
    totals = [row for row in rows if row['op'] == 'total']
    lines = []
    for row in totals:
        wide = row['dtype'] == 'float32'
        peers = [peer for peer in totals if (peer['work'], peer['dtype'] == 'float32') == (row['work'], wide)]
        ratio = times(row['bytes_per_logit'], peers[0]['bytes_per_logit'])
        lines.append([row['work'], row['path'], row['dtype'], row['bytes_per_logit'], row['of_logits'], ratio])
    header = ['from', 'loss', 'dtype', 'bytes per logit', 'of logits and gradients', 'mmdet + mmcv moves']
    return markdown(header, lines)
