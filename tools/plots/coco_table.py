"""Turns the metrics file of `tools/test.py` into a Markdown table.

Usage: python -m tools.plots.coco_table WORK_DIR
"""

import argparse
import json
import sys
from pathlib import Path

from tools.plots import newest

AREAS = {
    'mAP': 'AP, mean over IoU 0.50 to 0.95',
    'mAP_50': 'AP50',
    'mAP_75': 'AP75',
    'mAP_s': 'AP, small boxes (under 32 x 32)',
    'mAP_m': 'AP, medium boxes',
    'mAP_l': 'AP, large boxes (over 96 x 96)',
}
TITLES = {f'coco/bbox_{key}': text for key, text in AREAS.items()}
TITLES |= {f'coco/segm_{key}': f'masks: {text.replace("boxes", "masks")}' for key, text in AREAS.items()}


def table(metrics: dict[str, float]) -> str:
    """A Markdown table; COCO's -1 (no such box in the set) is written as a dash."""
    rows = [(text, metrics[key]) for key, text in TITLES.items() if key in metrics]
    if not rows:
        sys.exit('no coco/bbox_* or coco/segm_* metric in the file: was the detector tested with CocoMetric?')
    for key, value in metrics.items():
        if key.endswith('_precision'):
            rows.append((f'AP, {key.removeprefix("coco/").removesuffix("_precision")}', value))
    lines = [f'| {text} | {value:.3f} |' if value >= 0 else f'| {text} | - |' for text, value in rows]
    return '\n'.join(['| validation | value |', '|---|---|', *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('metrics', type=Path, help='the --work-dir of a test run, or its metrics file')
    parser.add_argument('-o', '--out', type=Path, help='also write the table here')
    args = parser.parse_args()
    file = newest(args.metrics, '*_*/*_*.json', 'the --work-dir of a `tools/test.py` run')
    text = table(json.loads(file.read_text()))
    print(text)
    if args.out:
        args.out.write_text(text + '\n')


if __name__ == '__main__':
    main()
