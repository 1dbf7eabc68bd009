"""Draws the times in a CSV of benchmarks/losses.py as bars, and the bytes moved per second beside what the card can move.

Of the GPU that was measured last, into gpu.png beside the CSV: its own work, without what Python takes.

Usage: python -m tools.plots.benchmark [CSV]
"""

import argparse
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.benchmarks.contenders import CLONE
from tools.benchmarks.results import BENCHMARK, read
from tools.benchmarks.tables import Row, groups, label
from tools.kernel_analysis.gpus import GPUS


def draw(rows: list[Row]) -> Figure:
    """A panel of bars a shape, and below them one of all shapes' rates; rows of one machine."""
    shapes = groups(rows, 'shape')
    names = list(dict.fromkeys(row['contender'] for row in rows))
    lines = -(-len(shapes) // 2)
    figure = Figure(figsize=(13, 3.2 * lines + 4.2), layout='constrained')
    grid = figure.add_gridspec(lines + 1, 2, height_ratios=[1] * lines + [1.25])
    for index, ((shape,), rows_here) in enumerate(shapes.items()):
        draw_times(figure.add_subplot(grid[index // 2, index % 2]), shape, rows_here, names)
    rates = figure.add_subplot(grid[lines, :])
    draw_rates(rates, rows, names)
    legend = dict(loc='outside upper center', ncols=5, fontsize=9)
    title = dict(title=f'{rows[0]["machine"]}, torch {rows[0]["torch"]}', title_fontproperties=dict(weight='bold'))
    figure.legend(*rates.get_legend_handles_labels(), **legend, **title)
    return figure


def draw_times(axis: Axes, shape: str, rows: list[Row], names: list[str]) -> None:
    dtypes = list(groups(rows, 'dtype'))
    width = 0.85 / len(names)
    for place, name in enumerate(names):
        own = [(dtypes.index((row['dtype'],)), worked(row)) for row in rows if row['contender'] == name]
        if own:
            x, heights = zip(*own, strict=True)
            left = [at + (place - (len(names) - 1) / 2) * width for at in x]
            bars = axis.bar(left, heights, 0.95 * width, color=f'C{place % 10}', label=name)
            axis.bar_label(bars, fmt='%.3g', fontsize=6.5, rotation=90, padding=2)
    axis.margins(y=0.25)
    axis.set_xticks(range(len(dtypes)), [dtype for (dtype,) in dtypes])
    axis.set_title(f'logits {label(shape)}', fontsize=10)
    axis.set(yscale='log', ylabel='forward + backward, ms of the GPU')
    axis.grid(False)


def worked(row: Row) -> float:
    """Milliseconds; of a run that was not profiled, with Python."""
    return float(row.get('gpu_ms') or row['both_ms'])


def rate(row: Row) -> float:
    return float(row['gb_per_s']) * float(row['both_ms']) / worked(row)


def draw_rates(axis: Axes, rows: list[Row], names: list[str]) -> None:
    """The roofline of work that memory bounds: flat."""
    cases = list(groups(rows, 'shape', 'dtype'))
    for place, name in enumerate(names):
        own = [row for row in rows if row['contender'] == name]
        x = [cases.index((row['shape'], row['dtype'])) for row in own]
        style = dict(marker='_', s=260, linewidths=2.5) if name == CLONE else dict(marker='o', s=42)
        axis.scatter(x, [rate(row) for row in own], color=f'C{place % 10}', label=name, **style)
    speed, source = roof(rows)
    axis.axhline(speed, color='#222222', linestyle='--', linewidth=1.2, label=f'{source}: {speed:.4g} GB/s')
    axis.set_xticks(range(len(cases)), [f'{label(shape)}\n{dtype}' for shape, dtype in cases], fontsize=8)
    axis.set_title('what has to move per second', fontsize=10)
    axis.set(ylim=(0, None), ylabel='GB/s')
    axis.grid(False, axis='x')


def roof(rows: list[Row]) -> tuple[float, str]:
    """GB/s, and whose."""
    for gpu in GPUS:
        if gpu.device == rows[0]['machine']:
            return gpu.bandwidth / 1e9, f'{gpu.name}, data sheet'
    return max(rate(row) for row in rows if row['contender'] == CLONE), 'the fastest clone'


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('csv', type=Path, nargs='?', default=BENCHMARK, help='default: tools/results/benchmark.csv')
    args = parser.parse_args(arguments)
    rows = read(args.csv)
    machines = [row['machine'] for row in rows if row['device'] == 'cuda']
    if not machines:
        sys.exit(f'{args.csv}: no rows of a GPU; it has {sorted({row["machine"] for row in rows})}')
    out = args.csv.with_name('gpu.png')
    draw([row for row in rows if row['machine'] == machines[-1]]).savefig(out, dpi=110)
    print(out)


if __name__ == '__main__':
    main()
