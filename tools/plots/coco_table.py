"""Turns the metrics file of `tools/test.py` into a Markdown table."""

import argparse
import json
import sys
from pathlib import Path

ROWS = {
    'mAP': 'AP, mean over IoU 0.50 to 0.95',
    'mAP_50': 'AP50',
    'mAP_75': 'AP75',
    'mAP_s': 'AP, small boxes (under 32 x 32)',
    'mAP_m': 'AP, medium boxes',
    'mAP_l': 'AP, large boxes (over 96 x 96)',
}


def newest_metrics(path: Path) -> Path:
    """The file itself, or the newest TIMESTAMP/TIMESTAMP.json of a work_dir."""
    if path.is_file():
        return path
    found = sorted(path.glob('*_*/*_*.json'), key=lambda file: file.stat().st_mtime)
    if not found:
        sys.exit(f'{path}: no metrics in it; give the --work-dir of a `tools/test.py` run, or the file itself')
    return found[-1]


def table(metrics: dict) -> str:
    """A Markdown table; COCO's -1 (no such box in the set) is written as a dash."""
    rows = [(text, metrics[f'coco/bbox_{key}']) for key, text in ROWS.items() if f'coco/bbox_{key}' in metrics]
    rows += [
        (f'masks: {text.replace("boxes", "masks")}', metrics[f'coco/segm_{key}'])
        for key, text in ROWS.items()
        if f'coco/segm_{key}' in metrics
    ]
    if not rows:
        sys.exit('no coco/bbox_* or coco/segm_* metric in the file: was the detector tested with CocoMetric?')
    ending = '_precision'
    rows += [
        (f'AP, {key.removeprefix("coco/").removesuffix(ending)}', value)
        for key, value in metrics.items()
        if key.endswith(ending)
    ]
    lines = ['| validation | value |', '|---|---|']
    return '\n'.join(lines + [f'| {text} | {value:.3f} |' if value >= 0 else f'| {text} | - |' for text, value in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('metrics', type=Path, help='the --work-dir of a test run, or its metrics file')
    parser.add_argument('-o', '--out', type=Path, help='also write the table here')
    args = parser.parse_args()
    text = table(json.loads(newest_metrics(args.metrics).read_text()))
    print(text)
    if args.out:
        args.out.write_text(text + '\n')


if __name__ == '__main__':
    main()
