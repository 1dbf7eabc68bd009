"""Draws the times in a CSV of benchmarks/losses.py as bars, and the bytes moved per second beside what the card can move."""

import argparse
import itertools
import sys
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.benchmarks.contenders import CLONE
from tools.benchmarks.results import BENCHMARK, read
from tools.benchmarks.tables import Row, groups, label
from tools.kernel_analysis.gpus import GPUS

PALETTE = colormaps['tab10'].colors
# What torch calls the cards of tools/kernel_analysis/gpus.py
CARDS = {
    'Tesla T4': 'T4',
    'NVIDIA A100-SXM4-40GB': 'A100 40GB SXM',
    'NVIDIA A100-SXM4-80GB': 'A100 80GB SXM',
    'NVIDIA GeForce RTX 3090': 'RTX 3090',
    'NVIDIA GeForce RTX 4090': 'RTX 4090',
    'NVIDIA H100 80GB HBM3': 'H100 SXM',
    'NVIDIA B200': 'B200',
    'NVIDIA GeForce RTX 5090': 'RTX 5090',
    'AMD Instinct MI300X': 'MI300X',
}


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
    legend = dict(loc='outside upper center', ncols=5, frameon=False, fontsize=9)
    title = dict(title=f'{rows[0]["machine"]}, torch {rows[0]["torch"]}', title_fontproperties=dict(weight='bold'))
    figure.legend(*rates.get_legend_handles_labels(), **legend, **title)
    return figure


def draw_times(axis: Axes, shape: str, rows: list[Row], names: list[str]) -> None:
    dtypes = list(groups(rows, 'dtype'))
    width = 0.85 / len(names)
    for place, (name, colour) in enumerate(zip(names, itertools.cycle(PALETTE), strict=False)):
        own = [(dtypes.index((row['dtype'],)), float(row['both_ms'])) for row in rows if row['contender'] == name]
        if own:
            x, heights = zip(*own, strict=True)
            left = [at + (place - (len(names) - 1) / 2) * width for at in x]
            bars = axis.bar(left, heights, 0.95 * width, color=colour, label=name)
            axis.bar_label(bars, fmt='%.3g', fontsize=6.5, rotation=90, padding=2)
    axis.set_yscale('log')
    axis.margins(y=0.25)
    axis.set_xticks(range(len(dtypes)), [dtype for (dtype,) in dtypes])
    axis.set_ylabel('forward + backward, ms')
    axis.set_title(f'logits {label(shape)}', fontsize=10)
    axis.spines[['top', 'right']].set_visible(False)


def draw_rates(axis: Axes, rows: list[Row], names: list[str]) -> None:
    """The roofline of work that memory bounds: flat."""
    cases = list(groups(rows, 'shape', 'dtype'))
    for name, colour in zip(names, itertools.cycle(PALETTE), strict=False):
        own = [row for row in rows if row['contender'] == name]
        x = [cases.index((row['shape'], row['dtype'])) for row in own]
        style = dict(marker='_', s=260, linewidths=2.5) if name == CLONE else dict(marker='o', s=42)
        axis.scatter(x, [float(row['gb_per_s']) for row in own], color=[colour], label=name, **style)
    speed, source = roof(rows)
    axis.axhline(speed, color='#222222', linestyle='--', linewidth=1.2, label=f'{source}: {speed:.4g} GB/s')
    axis.set_ylim(bottom=0)
    axis.set_xticks(range(len(cases)), [f'{label(shape)}\n{dtype}' for shape, dtype in cases], fontsize=8)
    axis.set_ylabel('GB/s')
    axis.set_title('what has to move, a second', fontsize=10)
    axis.grid(axis='y', alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)


def roof(rows: list[Row]) -> tuple[float, str]:
    """GB/s, and whose."""
    card = CARDS.get(rows[0]['machine'])
    for gpu in GPUS:
        if gpu.name == card:
            return gpu.bandwidth / 1e9, f'{gpu.name}, data sheet'
    return max(float(row['gb_per_s']) for row in rows if row['contender'] == CLONE), 'the fastest clone'


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('csv', type=Path, nargs='?', default=BENCHMARK, help='default: tools/results/benchmark.csv')
    parser.add_argument('--machine', help='as the CSV has it; default: the last GPU in it')
    parser.add_argument('-o', '--out', type=Path, help='default: gpu.png beside the CSV')
    args = parser.parse_args(arguments)
    rows = read(args.csv)
    machines = [row['machine'] for row in rows if row['device'] == 'cuda']
    machine = args.machine or (machines[-1] if machines else None)
    own = [row for row in rows if row['machine'] == machine]
    if not own:
        sys.exit(f'{args.csv}: no rows of {machine or "a GPU"}; it has {sorted({row["machine"] for row in rows})}')
    out = args.out or args.csv.with_name('gpu.png')
    save(draw(own), out)
    print(out)


if __name__ == '__main__':
    main()
