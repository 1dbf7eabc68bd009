"""Draws photos with their true and predicted boxes on one sheet, from what `tools/test.py --out FILE.pkl` wrote."""

import argparse
import json
import pickle
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib import image, patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

TRUE, PREDICTED = '#FFFFFF', '#FFB000'
OUTLINE = [patheffects.withStroke(linewidth=2.5, foreground='black')]


def read_predictions(file: Path) -> list[dict]:
    if not file.is_file():
        sys.exit(f'{file}: no such file; write it with `python tools/test.py CONFIG CHECKPOINT --out {file}`')
    with file.open('rb') as stream:
        rows = pickle.load(stream)
    if not isinstance(rows, list) or not rows or 'pred_instances' not in rows[0]:
        sys.exit(f'{file}: holds no detections of `tools/test.py --out`')
    return rows


def read_truth(file: Path) -> tuple[list[str], dict[int, list[tuple]]]:
    """The class names, and for each photo its (x, y, width, height, name)."""
    coco = json.loads(file.read_text())
    names = {category['id']: category['name'] for category in coco['categories']}
    boxes = defaultdict(list)
    for annotation in coco['annotations']:
        boxes[annotation['image_id']].append((*annotation['bbox'], names[annotation['category_id']]))
    return list(names.values()), boxes


def best_of_overlapping(detections: dict, score_thr: float) -> list[tuple]:
    """The (x, y, width, height), score and label of each box that no higher-scoring one covers by half (IoU)."""
    kept = []
    rows = zip(*(detections[key].tolist() for key in ('bboxes', 'scores', 'labels')), strict=True)
    for (x1, y1, x2, y2), score, label in sorted(rows, key=lambda row: -row[1]):
        box = (x1, y1, x2 - x1, y2 - y1)
        if score >= score_thr and all(iou(box, other) < 0.5 for other, _, _ in kept):
            kept.append((box, score, label))
    return kept


def iou(a: tuple, b: tuple) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def draw_box(axis, box: tuple, colour: str, label: str, below: bool, dashed: bool) -> None:
    x, y, width, height = box
    style = dict(fill=False, edgecolor=colour, linewidth=1.8, linestyle='--' if dashed else '-', path_effects=OUTLINE)
    axis.add_patch(Rectangle((x, y), width, height, **style))
    bottom, right = axis.get_ylim()[0], axis.get_xlim()[1]
    # Labels stay inside the photo: true ones under their box, predicted ones above.
    text_y = min(y + height + 2, bottom - 16) if below else max(y - 2, 16)
    left = x < right * 0.6
    axis.text(
        max(x, 2) if left else min(x + width, right - 2),
        text_y,
        label,
        color=colour,
        fontsize=9,
        fontweight='bold',
        ha='left' if left else 'right',
        va='top' if below else 'bottom',
        path_effects=OUTLINE,
    )


def draw(rows: list[dict], names: list[str], truth: dict, score_thr: float, columns: int, title: str):
    """A figure with one photo a cell."""
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.75 * lines + 0.9), layout='constrained')
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for axis, row in zip(axes.flat, rows, strict=False):
        photo = image.imread(row['img_path'])
        axis.imshow(photo)
        for *box, name in truth[row['img_id']]:
            draw_box(axis, box, TRUE, name, below=True, dashed=True)
        for box, score, label in best_of_overlapping(row['pred_instances'], score_thr):
            draw_box(axis, box, PREDICTED, f'{names[label]} {score:.2f}', below=False, dashed=False)
    handles = [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor='#222222', linestyle='--', linewidth=1.8),
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=PREDICTED, linewidth=2.4),
    ]
    labels = [
        'true box (white, name below)',
        f'predicted box (name and score above): score at least {score_thr:g}, the best of overlapping ones',
    ]
    figure.suptitle(title, fontsize=14)
    figure.legend(handles, labels, loc='outside lower center', ncols=2, frameon=False, fontsize=11)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('predictions', type=Path, help='FILE.pkl of `tools/test.py --out FILE.pkl`')
    parser.add_argument('annotations', type=Path, help='the COCO file with the true boxes of the same photos')
    parser.add_argument('-o', '--out', type=Path, default=Path('detections.png'), help='default: %(default)s')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score drawn; default: %(default)s')
    parser.add_argument(
        '--max-photos', type=int, default=16, help='how many photos, evenly spaced; default: %(default)s'
    )
    parser.add_argument('--columns', type=int, default=4, help='default: %(default)s')
    parser.add_argument('--title', default='Detections', help='default: %(default)s')
    args = parser.parse_args()
    rows = read_predictions(args.predictions)
    names, truth = read_truth(args.annotations)
    count = min(args.max_photos, len(rows))
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    figure = draw(chosen, names, truth, args.score_thr, min(args.columns, count), args.title)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110)
    print(args.out)


if __name__ == '__main__':
    main()
