"""Draws photos with their true and predicted boxes on one sheet, from what `tools/test.py --out FILE.pkl` wrote.

Where the predictions have masks, masks are drawn in place of boxes.
"""

import argparse
import json
import pickle
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib import colormaps, image, patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pycocotools import mask as rle

TRUE, PREDICTED, MASKS = '#FFFFFF', '#FFB000', colormaps['Set2']
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
    """The class names, and for each photo its (x, y, width, height, name, COCO segmentation or None)."""
    coco = json.loads(file.read_text())
    names = {category['id']: category['name'] for category in coco['categories']}
    objects = defaultdict(list)
    for annotation in coco['annotations']:
        name, segmentation = names[annotation['category_id']], annotation.get('segmentation')
        objects[annotation['image_id']].append((*annotation['bbox'], name, segmentation))
    return list(names.values()), objects


def best_of_overlapping(detections: dict, score_thr: float) -> list[tuple]:
    """The (x, y, width, height), score, label and index of each box that no higher-scoring one covers by half (IoU)."""
    kept = []
    rows = zip(*(detections[key].tolist() for key in ('bboxes', 'scores', 'labels')), strict=True)
    for index, ((x1, y1, x2, y2), score, label) in sorted(enumerate(rows), key=lambda row: -row[1][1]):
        box = (x1, y1, x2 - x1, y2 - y1)
        if score >= score_thr and all(iou(box, other) < 0.5 for other, *_ in kept):
            kept.append((box, score, label, index))
    return kept


def iou(a: tuple, b: tuple) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def draw_box(axis, box: tuple, colour, dashed: bool) -> None:
    x, y, width, height = box
    style = dict(fill=False, edgecolor=colour, linewidth=1.8, linestyle='--' if dashed else '-', path_effects=OUTLINE)
    axis.add_patch(Rectangle((x, y), width, height, **style))


def draw_outlines(axis, segmentation, colour) -> None:
    """The outline of a true mask: COCO polygons; of a crowd, which has none, nothing."""
    for polygon in segmentation if isinstance(segmentation, list) else []:
        axis.fill(polygon[0::2], polygon[1::2], fill=False, edgecolor=colour, linewidth=1.2, linestyle='--')


def draw_mask(axis, encoded: dict, colour: tuple) -> None:
    """A predicted mask, as COCO's run lengths, laid over the photo."""
    mask = rle.decode(encoded).astype(bool)
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = (*colour, 0.55)
    axis.imshow(layer)


def draw_label(axis, box: tuple, colour, label: str, below: bool) -> None:
    x, y, width, height = box
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
        masks = row['pred_instances'].get('masks')
        for *box, name, segmentation in truth[row['img_id']]:
            if masks is None:
                draw_box(axis, box, TRUE, dashed=True)
                draw_label(axis, box, TRUE, name, below=True)
            else:  # objects are many and overlap: their names would hide them
                draw_outlines(axis, segmentation, TRUE)
        for nth, (box, score, label, index) in enumerate(best_of_overlapping(row['pred_instances'], score_thr)):
            colour = PREDICTED if masks is None else MASKS(nth % MASKS.N)[:3]
            if masks is None:
                draw_box(axis, box, colour, dashed=False)
            else:
                draw_mask(axis, masks[index], colour)
            draw_label(axis, box, colour, f'{names[label]} {score:.2f}', below=False)
    masked = 'masks' in rows[0]['pred_instances']
    handles = [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor='#222222', linestyle='--', linewidth=1.8),
        Rectangle((0, 0), 1, 1, fill=masked, color=MASKS(0) if masked else PREDICTED, linewidth=2.4),
    ]
    labels = [
        'true mask (white outline)' if masked else 'true box (white, name below)',
        f'predicted {"mask" if masked else "box"} (name and score above): score at least {score_thr:g}, '
        'the best of overlapping ones',
    ]
    figure.suptitle(title, fontsize=14)
    figure.legend(handles, labels, loc='outside lower center', ncols=2, frameon=False, fontsize=11)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('predictions', type=Path, help='FILE.pkl of `tools/test.py --out FILE.pkl`')
    parser.add_argument('annotations', type=Path, help='the COCO file of the same photos')
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
