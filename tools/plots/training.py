"""Draws a run's loss curve, and its validation AP50 below it, from the scalars that mmengine logs.

Usage: python -m tools.plots.training WORK_DIR
"""

import argparse
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tools.plots import newest

LOSSES = {
    'loss': ('total', '#222222'),
    'loss_cls': ('class', '#D55E00'),
    'loss_bbox': ('box', '#0072B2'),
    'loss_mask': ('mask', '#CC79A7'),
}
AP50 = 'coco/bbox_mAP_50'


def read(file: Path) -> tuple[list[dict], list[dict]]:
    """The training rows and the validation rows."""
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        sys.exit(f'{file}: not one JSON object per line ({error})')
    training = [row for row in rows if 'loss' in row]
    if not training:
        sys.exit(f'{file}: holds no training loss')
    return training, [row for row in rows if AP50 in row]


def draw(training: list[dict], validation: list[dict], title: str) -> Figure:
    """A figure: losses over the iterations, and AP50 where it was measured."""
    panels = 2 if validation else 1
    figure = Figure(figsize=(8, 3.2 * panels + 0.6), layout='constrained')
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)
    losses, scores = axes[0, 0], axes[-1, 0]
    steps = [row['step'] for row in training]
    for key, (label, colour) in LOSSES.items():
        if all(key in row for row in training):
            losses.plot(steps, [row[key] for row in training], color=colour, label=label, linewidth=1.8)
    losses.set(ylabel='training loss', ylim=(0, None))
    losses.legend()
    if validation:
        # mmengine numbers a validation row by its epoch.
        steps_per_epoch = training[-1]['step'] / training[-1]['epoch']
        points = [(row['step'] * steps_per_epoch, row[AP50]) for row in validation]
        scores.plot(*zip(*points, strict=True), color='#009E73', marker='o', linewidth=1.8)
        for x, y in points:
            scores.annotate(f'{y:.2f}', (x, y), xytext=(0, 7), textcoords='offset points', ha='center', fontsize=9)
        scores.set(ylabel='validation AP50', ylim=(0, max(0.1, 1.25 * max(y for _, y in points))))
    scores.set(xlabel='iteration', xlim=(0, None))
    scores.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path, help='the work_dir of a run, or its scalars.json')
    parser.add_argument('-o', '--out', type=Path, default=Path('loss_curve.png'), help='default: %(default)s')
    parser.add_argument('--title', default='Training', help='default: %(default)s')
    args = parser.parse_args()
    figure = draw(*read(newest(args.run, '*/vis_data/scalars.json', 'the work_dir of a training run')), args.title)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=150)
    print(args.out)


if __name__ == '__main__':
    main()
