"""The demo's many classes: the data, the metric of those that are shown, the memory of mmdet's head beside it."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from tools.training import many_classes

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/cut/fcos_r18_fpn_boards_fused-head-cut.py'
BOARDS = ROOT / 'tests/data/boards'
MANY = 300


def names_of(content: dict) -> list[str]:
    """The class of each annotation."""
    names = {each['id']: each['name'] for each in content['categories']}
    return [names[each['category_id']] for each in content['annotations']]


def test_classes_are_spread_and_annotations_keep_theirs():
    content = json.loads((BOARDS / 'val.json').read_text())
    spread = many_classes.spread(content, MANY)
    assert [each['id'] for each in spread['categories']] == list(range(1, MANY + 1))
    assert len({each['name'] for each in spread['categories']}) == MANY
    assert names_of(spread) == names_of(content)
    shown = [each['id'] - 1 for each in spread['categories'] if not each['name'].startswith('class ')]
    assert shown == [0, 99, 199, 299]  # the first and the last chunk have one each
    rest = ('bbox', 'image_id', 'area')
    for before, after in zip(content['annotations'], spread['annotations'], strict=True):
        assert [before[key] for key in rest] == [after[key] for key in rest]


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Config:
    return many_classes.written(CONFIG, tmp_path_factory.mktemp('many'), MANY)


def metric(kind: type[CocoMetric], annotations: str, names: list[str]) -> CocoMetric:
    made = kind(ann_file=annotations, metric='bbox')
    made.dataset_meta = dict(classes=names)
    return made


def predictions(annotations: Path) -> list[dict]:
    """The true boxes of each photo, moved, with their labels or others."""
    content, generator = json.loads(annotations.read_text()), torch.Generator().manual_seed(0)
    rows = []
    for image in content['images']:
        of_image = [each for each in content['annotations'] if each['image_id'] == image['id']]
        boxes = torch.tensor([each['bbox'] for each in of_image]).repeat(3, 1)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        boxes += 8 * torch.rand(boxes.shape, generator=generator)
        labels = torch.tensor([each['category_id'] - 1 for each in of_image]).repeat(3)
        wrong = torch.randint(0, MANY, labels.shape, generator=generator)
        labels = torch.where(torch.rand(labels.shape, generator=generator) < 0.3, wrong, labels)
        scores = torch.rand(labels.shape, generator=generator)
        predicted = dict(bboxes=boxes, labels=labels, scores=scores)
        rows.append(dict(img_id=image['id'], ori_shape=(240, 320), pred_instances=predicted))
    return rows


def test_ap_of_the_shown_classes_is_cocos_of_all(config):
    """Which leaves out the classes without boxes."""
    annotations = Path(config.val_dataloader.dataset.ann_file)
    names = [each['name'] for each in json.loads(annotations.read_text())['categories']]
    rows = predictions(annotations)
    before = [row['pred_instances']['labels'].clone() for row in rows]
    found = []
    for each in (
        metric(CocoMetric, str(annotations), names),
        metric(many_classes.ShownClassesMetric, str(BOARDS / 'val.json'), names),
    ):
        each.process({}, rows)
        found.append(each.evaluate(len(rows)))
    theirs, ours = found
    assert 0.2 < theirs['coco/bbox_mAP_50'] < 0.95
    assert ours == theirs
    # The predictions that tools/test.py writes down are the same objects.
    assert all(torch.equal(row['pred_instances']['labels'], labels) for row, labels in zip(rows, before, strict=True))


def test_mmdets_own_head_is_what_is_compared(tmp_path):
    stock = many_classes.with_stock_head(many_classes.written(CONFIG, tmp_path, MANY))
    init_default_scope('mmdet')
    head = MODELS.build(stock.model.bbox_head)
    assert type(head).__name__ == 'FCOSHead' and type(head.loss_cls).__module__.startswith('mmdet.')
    assert head.num_classes == MANY and head.loss_cls.gamma == 2.0
    assert stock.val_dataloader is None


@pytest.mark.parametrize(
    ('free', 'most'),
    [(20, 13204), (7.7, 13204), (6, 10000), (1, 1000)],
    ids=['all fit', 'hardly all', 'half of what is free', 'not even the first ones'],
)
def test_no_more_classes_than_fit_are_trained(free, most, monkeypatch):
    """In GB; a process takes 0.5, and each class 250 kB, below 0.7 beside what else it does."""
    trained = []

    def peak(file, folder, classes):
        trained.append(classes)
        return int(max(0.7e9, 0.5e9 + 250e3 * classes))

    monkeypatch.setattr(many_classes, 'available', lambda: int(free * 1e9))
    monkeypatch.setattr(many_classes, 'stock_peak', peak)
    lines = many_classes.compare(CONFIG, Path('unused'), 13204, 700_000_000).splitlines()
    assert most / 1.1 <= max(trained) <= most
    assert all(later <= 4 * earlier for earlier, later in itertools.pairwise(trained))
    assert lines[0] == '0.65 GiB: the training above, 13204 classes with cut=True'
    assert lines[1].startswith(
        f"{peak(0, 0, max(trained)) / 2**30:.2f} GiB: mmdet's head and loss, {max(trained)} classes"
    )
    assert ('more were not tried' in lines[1]) == (len(lines) == 3) == (most < 13204)
    if 6000 < most < 13204:
        computed = float(re.match(r'([\d.]+) GiB: the same, 13204 classes, computed', lines[2])[1])
        assert computed == pytest.approx(3.54, abs=0.05)


def test_the_peak_of_a_process_is_written_down(tmp_path):
    file = tmp_path / 'peak'
    held = 'import sys; x = b"x" * 300_000_000; sys.exit(3)'
    done = subprocess.run([sys.executable, '-m', 'tools.training.peak', file, sys.executable, '-c', held], cwd=ROOT)
    assert done.returncode == 3
    assert 300e6 < int(file.read_text()) < 350e6


def test_few_classes_are_refused(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        many_classes.main([str(CONFIG), str(tmp_path), '--classes', '4'])
    assert stopped.value.code == 2 and '--classes must be at least 1000, got 4' in capsys.readouterr().err


@pytest.mark.slow
def test_a_short_training_with_mmdets_head_is_measured(tmp_path):
    """Its memory grows with the classes by more than ten copies of their logits."""
    few, many = (many_classes.stock_peak(CONFIG, tmp_path, classes) for classes in (200, 2200))
    places = 8 * sum(-(-144 // stride) * -(-192 // stride) for stride in (8, 16, 32))
    assert 10 < (many - few) / (2000 * places * 4) < 20


@pytest.mark.slow
def test_the_fused_head_trains_and_is_tested_on_them(tmp_path):
    many_classes.main([str(CONFIG), str(tmp_path), '--classes', '1000'])
    few = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.dataset.indices=16']
    command = ['tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'work', '--cfg-options', *few]
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    # After two iterations no box need have an area: there may be no detection, and without one no metric.
    output = done.stdout + done.stderr
    assert re.search(r'Epoch\(train\) \[1]\[2/2].* loss: \d+\.\d+ ', output) and 'Epoch(val) [1][29/29]' in output
