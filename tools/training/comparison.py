"""What a comparison of losses leaves: the records of its trainings, the table and the curves."""

import itertools
import json
import re
import statistics
from contextlib import suppress
from pathlib import Path

from matplotlib import cycler, rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from focal_plugin.check_swap.request import Loss, UsageError

# Okabe and Ito's colours, which the colour-blind can tell apart; lines beyond them are dashed.
COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#222222']
STYLES = cycler(linestyle=['-', '--', ':']) * cycler(color=COLOURS)
LOOKS = {'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.alpha': 0.25}
PREFERRED = ('coco/bbox_mAP', 'coco/segm_mAP')


def folder_of(work_dir: Path, loss: Loss) -> Path:
    return work_dir / re.sub(r'[^\w.=-]+', '_', loss.text)


def records(folder: Path) -> tuple[list[dict], list[dict]]:
    """Training and validation rows in order; where an interruption made some twice, the last ones."""
    training, validation = {}, {}
    file = folder / 'records.jsonl'
    for line in file.read_text().splitlines() if file.exists() else []:
        # A line between two sessions is empty, or half of one where the first was killed.
        with suppress(json.JSONDecodeError):
            row = json.loads(line)
            (validation if 'metrics' in row else training)[row['iter']] = row
    return [training[i] for i in sorted(training)], [validation[i] for i in sorted(validation)]


def chosen_metrics(results: list[dict], asked: list[str] | None) -> list[str]:
    """The metrics of the table; UsageError for one that the evaluation does not give."""
    known = list(dict.fromkeys(name for result in results for name in result['metrics']))
    if asked:
        for name in asked:
            if name not in known:
                raise UsageError(f'no metric {name!r}; the evaluation gives {", ".join(known) or "none"}')
        return asked
    return [next((name for name in PREFERRED if name in known), known[0])] if known else []


def row_of(loss: Loss, work_dir: Path, metrics: list[str]) -> dict[str, str]:
    """A training in the table."""
    folder = folder_of(work_dir, loss)
    training, _ = records(folder)
    result = json.loads((folder / 'result.json').read_text())
    last = training[-max(1, len(training) // 10) :]
    # The first records hold what is done once.
    times = [row['time'] for row in training[1:] or training]
    return {
        'loss': loss.text,
        **{name: f'{result["metrics"].get(name, float("nan")):.4g}' for name in metrics},
        'training loss': f'{statistics.mean(row["loss"] for row in last):.4g}',
        'time an iteration (ms)': f'{1e3 * statistics.median(times):.1f}',
        'peak memory (MiB)': f'{max(row["peak"] for row in training) / 2**20:.0f}',
        'iterations': str(result['iters']),
    }


def markdown(rows: list[dict[str, str]]) -> str:
    lines = ['| ' + ' | '.join(rows[0]) + ' |', '|' + ' --- |' * len(rows[0])]
    return '\n'.join(lines + ['| ' + ' | '.join(row.values()) + ' |' for row in rows]) + '\n'


@rc_context(LOOKS)
def draw(losses: list[Loss], work_dir: Path, metrics: list[str], title: str) -> Figure:
    """Classification loss, the other losses, and the metric, over the iterations."""
    panels = ['classification loss', 'other losses', *metrics]
    figure = Figure(figsize=(8, 2.7 * len(panels) + 0.8), layout='constrained')
    axes = figure.subplots(len(panels), 1, sharex=True)
    for loss, style in zip(losses, itertools.cycle(STYLES), strict=False):
        training, validation = records(folder_of(work_dir, loss))
        steps = [row['iter'] for row in training]
        classification = [sum(value for name, value in row.items() if is_classification(name)) for row in training]
        others = [row['loss'] - value for row, value in zip(training, classification, strict=True)]
        axes[0].plot(steps, classification, label=loss.text, **style)
        axes[1].plot(steps, others, **style)
        for axis, name in zip(axes[2:], metrics, strict=True):
            points = [(row['iter'], row['metrics'][name]) for row in validation if name in row['metrics']]
            axis.plot(*zip(*points, strict=True), marker='o', markersize=4, **style)
    for axis, label in zip(axes, panels, strict=True):
        axis.set_ylabel(label)
    # Losses of different definitions differ by orders of magnitude.
    axes[0].set_yscale('log')
    axes[0].legend(frameon=False, fontsize=9, ncols=2)
    axes[-1].set_xlabel('iteration')
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    return figure


def is_classification(name: str) -> bool:
    return 'loss' in name and any(word in name for word in ('cls', 'heatmap'))
