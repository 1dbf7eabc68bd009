"""A config's classes among many that no photo shows, and the memory that training takes then.

    python -m tools.training.many_classes CONFIG FOLDER --classes 13204
    python -m tools.training.many_classes CONFIG FOLDER --classes 13204 --compare BYTES

The first writes into FOLDER the data's annotations, with that many classes, and config.py, which trains CONFIG's fused head
on them. The second trains mmdet's own head and loss beside it, a few iterations each in a process of its own, with as many
classes as fit, and prints its peaks below BYTES, that of the fused head.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.config import Config

from .memory import available

ROOT = Path(__file__).parents[2]
MOST = 8 * 2**30  # bytes of a training with mmdet's head, so that the comparison stays short
ITERATIONS = 2  # of a training with mmdet's head
FIRST = (500, 1000)  # classes


@METRICS.register_module()
class ShownClassesMetric(CocoMetric):
    """CocoMetric of the classes of its own annotations, which may be few of those that the detector tells apart.

    Classes that no photo shows have no AP, and with thousands of them COCO's tables take gigabytes.
    """

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        names = list(self.dataset_meta['classes'])
        shown = torch.tensor([names.index(each['name']) for each in self._coco_api.dataset['categories']])
        for sample in data_samples:
            predicted = sample['pred_instances']
            row, label = (predicted['labels'].cpu()[:, None] == shown).nonzero(as_tuple=True)
            kept = {key: value[row] for key, value in predicted.items()}
            super().process(data_batch, [{**sample, 'pred_instances': {**kept, 'labels': label}}])


def spread(content: dict, classes: int) -> dict:
    """COCO annotations whose categories stand, evenly spaced, among others; category i is label i - 1."""
    shown = content['categories']
    places = {each['id']: 1 + index * (classes - 1) // (len(shown) - 1) for index, each in enumerate(shown)}
    names = {places[each['id']]: each['name'] for each in shown}
    return {
        **content,
        'categories': [dict(id=i, name=names.get(i, f'class {i - 1:05}')) for i in range(1, classes + 1)],
        'annotations': [{**each, 'category_id': places[each['category_id']]} for each in content['annotations']],
    }


def written(file: Path, folder: Path, classes: int) -> Config:
    """The config with so many classes; its annotations and their names are in the folder."""
    config = Config.fromfile(file, import_custom_modules=False)
    folder.mkdir(parents=True, exist_ok=True)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        dataset = loader.dataset
        content = spread(json.loads((ROOT / dataset.data_root / dataset.ann_file).read_text()), classes)
        annotations, names = (folder / dataset.ann_file).resolve(), (folder / 'classes.txt').resolve()
        annotations.write_text(json.dumps(content))
        names.write_text('\n'.join(each['name'] for each in content['categories']))
        dataset.update(ann_file=str(annotations), metainfo=dict(classes=str(names)))
    # At test time heads have class logits: of one photo.
    config.val_dataloader.batch_size = config.test_dataloader.batch_size = 1
    config.val_evaluator.type = config.test_evaluator.type = 'ShownClassesMetric'
    config.custom_imports.imports.append('training.many_classes')
    config.model.bbox_head.num_classes = classes
    return config


def with_stock_head(config: Config) -> Config:
    """The config with mmdet's own head and loss, which trains a few iterations and validates nothing."""
    head = config.model.bbox_head
    del head['cut']
    for part in (head, head.loss_cls):
        part.type = part.type.removeprefix('Fused')
    config.train_dataloader.dataset.indices = ITERATIONS * config.train_dataloader.batch_size
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    return config


def stock_peak(file: Path, folder: Path, classes: int) -> int:
    """Bytes of a training with mmdet's head, in a process of its own."""
    config, peak = folder / 'config.py', folder / 'peak'
    with_stock_head(written(file, folder, classes)).dump(config)
    train = [sys.executable, 'tools/train.py', config, '--work-dir', folder]
    with (folder / 'train.log').open('w') as log:
        measured = [sys.executable, '-m', 'tools.training.peak', peak, *train]
        done = subprocess.run(list(map(str, measured)), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f'training with {classes} classes failed: see {folder / "train.log"}')
    return int(peak.read_text())


def compare(file: Path, folder: Path, classes: int, ours: int) -> str:
    """The peak of the training with the fused head, and that of a short one with mmdet's, in words."""
    limit = min(MOST, available() // 2)
    peaks = {count: stock_peak(file, folder, count) for count in FIRST}
    while (more := next_classes(peaks, classes, limit)) > 1.1 * max(peaks):
        peaks[more] = stock_peak(file, folder, more)
    most, (base, slope) = max(peaks), line(peaks)
    said = [
        f'{gibibytes(ours)}: the training above, {classes} classes with cut=True',
        f"{gibibytes(peaks[most])}: mmdet's head and loss, {most} classes, {ITERATIONS} iterations",
    ]
    if most < classes:
        said[-1] += f'; more were not tried, to stay below {gibibytes(limit)}'
        said.append(
            f'{gibibytes(base + slope * classes)}: the same, {classes} classes, computed from what each class took'
        )
    return '\n'.join(said)


def next_classes(peaks: dict[int, int], classes: int, limit: int) -> int:
    """How many classes to train next: so far only as the line is known to lead, and within the limit."""
    base, slope = line(peaks)
    fitting = (limit - base) / slope if slope > 0 else classes  # few classes take less than the rest of the process
    return int(min(classes, 4 * max(peaks), fitting))


def line(peaks: dict[int, int]) -> tuple[float, float]:
    """(bytes without a class, bytes of each), by the peaks of the most classes."""
    *_, few, many = sorted(peaks)
    slope = (peaks[many] - peaks[few]) / (many - few)
    return peaks[few] - few * slope, slope


def gibibytes(size: float) -> str:
    return f'{size / 2**30:.2f} GiB'


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--classes', type=int, required=True)
    parser.add_argument('--compare', type=int, metavar='BYTES')
    args = parser.parse_args(arguments)
    if args.classes < max(FIRST):
        parser.error(f'--classes must be at least {max(FIRST)}, got {args.classes}')
    if args.compare:
        print(compare(args.config, args.folder / 'stock', args.classes, args.compare))
    else:
        written(args.config, args.folder, args.classes).dump(args.folder / 'config.py')


if __name__ == '__main__':
    main()
