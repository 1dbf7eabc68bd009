"""Draws photos on one sheet, each with its true objects and beside it with the predicted ones, as mmdet's visualizer does.

Usage: python -m tools.plots.detections FILE.pkl ANNOTATIONS
"""

import argparse
import contextlib
import io
import pickle
import sys
from pathlib import Path

import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.datasets.api_wrappers import COCO
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData
from pycocotools import mask as rle


def read_predictions(file: Path) -> list[dict]:
    if not file.is_file():
        sys.exit(f'{file}: no such file; write it with `python tools/test.py CONFIG CHECKPOINT --out {file}`')
    with file.open('rb') as stream:
        rows = pickle.load(stream)
    if not isinstance(rows, list) or not rows or 'pred_instances' not in rows[0]:
        sys.exit(f'{file}: holds no detections of `tools/test.py --out`')
    return rows


def read_truth(file: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file))


def sample_of(row: dict, truth: COCO, score_thr: float | None) -> DetDataSample:
    """The true objects of a photo, and the predicted ones of a score; their masks where masks are predicted.

    Args:
        score_thr: the lowest score, or None: the best objects, as many as there are true ones.
    """
    annotations = truth.loadAnns(truth.getAnnIds(row['img_id']))
    boxes = torch.tensor([each['bbox'] for each in annotations], dtype=torch.float32).reshape(-1, 4)
    classes = truth.getCatIds()
    labels = torch.tensor([classes.index(each['category_id']) for each in annotations], dtype=torch.int64)
    true = InstanceData(bboxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1), labels=labels)
    scores = row['pred_instances']['scores']
    best = scores.argsort(descending=True)
    chosen = best[: len(annotations)] if score_thr is None else best[scores[best] > score_thr]
    predicted = InstanceData(**{key: row['pred_instances'][key][chosen] for key in ('bboxes', 'scores', 'labels')})
    if 'masks' in row['pred_instances']:
        predicted.masks = _stacked([rle.decode(row['pred_instances']['masks'][place]) for place in chosen])
        true.masks = _stacked([truth.annToMask(each) for each in annotations])
    return DetDataSample(gt_instances=true, pred_instances=predicted)


def _stacked(masks: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, 1, 1)


def draw(rows: list[dict], truth: COCO, score_thr: float | None, columns: int, title: str) -> Figure:
    """A figure with one photo per cell: the true objects on its left copy, the predicted ones on its right one."""
    visualizer = DetLocalVisualizer(line_width=2)
    names = [each['name'] for each in truth.loadCats(truth.getCatIds())]
    # COCO's palette has as many colours as COCO classes.
    visualizer.dataset_meta = {'classes': names, 'palette': 'coco' if len(names) <= 80 else 'random'}
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(6.4 * columns, 2.5 * lines + 0.5), layout='constrained')
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for axis, row in zip(axes.flat, rows, strict=False):
        photo = mmcv.imread(row['img_path'], channel_order='rgb')
        visualizer.add_datasample('photo', photo, sample_of(row, truth, score_thr), pred_score_thr=0.0)
        axis.imshow(visualizer.get_image())
    shown = 'the best as many' if score_thr is None else f'score over {score_thr:g}'
    figure.suptitle(f'{title} (left: true, right: predicted, {shown})')
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('predictions', type=Path, help='FILE.pkl of `tools/test.py --out FILE.pkl`')
    parser.add_argument('annotations', type=Path, help='the COCO file of the same photos')
    parser.add_argument('-o', '--out', type=Path, default=Path('detections.png'), help='default: %(default)s')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--score-thr', type=float, default=0.3, help='lowest score drawn; default: %(default)s')
    which.add_argument(
        '--as-many', action='store_true', help='draw the best of a photo, as many as there are true objects'
    )
    parser.add_argument(
        '--max-photos', type=int, default=16, help='how many photos, evenly spaced; default: %(default)s'
    )
    parser.add_argument('--title', default='Detections', help='default: %(default)s')
    args = parser.parse_args()
    rows = read_predictions(args.predictions)
    count = min(args.max_photos, len(rows))
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    score_thr = None if args.as_many else args.score_thr
    figure = draw(chosen, read_truth(args.annotations), score_thr, min(2, count), args.title)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110)
    print(args.out)


if __name__ == '__main__':
    main()
