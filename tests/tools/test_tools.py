"""The tools as a user starts them: training and testing through mmdet's own scripts, and what is drawn from a run."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py'
VAL = ROOT / 'tests/data/boards/val.json'
# Two iterations of two photos, and a validation of four.
TINY = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.indices=4',
    'val_dataloader.dataset.indices=4',
    'test_dataloader.dataset.indices=4',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=1',
]


def start(*command, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '2', **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def succeeded(*command, **environment) -> str:
    done = start(*command, **environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def training_rows(work: Path) -> list[dict]:
    (scalars,) = work.glob('*/vis_data/scalars.json')
    return [row for row in map(json.loads, scalars.read_text().splitlines()) if 'loss' in row]


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
    """The work_dir of a tiny training and its test."""
    work = tmp_path_factory.mktemp('run')
    succeeded('tools/train.py', CONFIG, '--work-dir', work, '--cfg-options', *TINY)
    checkpoint = (work / 'last_checkpoint').read_text()
    succeeded(
        'tools/test.py',
        CONFIG,
        checkpoint,
        '--work-dir',
        work / 'test',
        '--out',
        work / 'predictions.pkl',
        '--cfg-options',
        *TINY,
        'model.test_cfg.score_thr=0.0',
    )
    return work


def test_training_learns_and_is_evaluated(run):
    rows = training_rows(run)
    assert [row['iter'] for row in rows] == [1, 2]
    for row in rows:
        assert 0.5 < row['loss_cls'] < 3 and np.isfinite(row['loss'])
        assert row['loss'] == pytest.approx(row['loss_cls'] + row['loss_bbox'], rel=1e-5)
    # Predictions are of the four photos in the annotations' order, in their own pixels.
    predictions = pickle.loads((run / 'predictions.pkl').read_bytes())
    assert [row['img_id'] for row in predictions] == [entry['id'] for entry in json.loads(VAL.read_text())['images']][
        :4
    ]
    boxes = torch.cat([row['pred_instances']['bboxes'] for row in predictions])
    assert len(boxes) > 0 and (boxes >= 0).all() and (boxes <= torch.tensor([320.01, 240.01, 320.01, 240.01])).all()


@pytest.mark.slow
def test_untouched_arguments_reach_mmdet():
    usage = succeeded('tools/train.py', '--help')
    assert '--auto-scale-lr' in usage and '--launcher' in usage
    done = start('tools/train.py', 'configs/absent.py')
    assert done.returncode != 0 and 'configs/absent.py' in done.stderr


def test_missing_mmdet_is_said():
    # -S leaves site-packages out of the path.
    done = start('-S', 'tools/train.py', CONFIG, PYTHONPATH='')
    assert done.returncode == 1
    assert done.stderr.startswith('mmdet is not installed') and 'tools/setup_env.sh' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
def test_two_processes_train_as_one_model(tmp_path):
    """torchrun passes through, gloo joins the processes, and each takes its share of the photos."""
    command = ['tools/train.py', CONFIG, '--launcher', 'pytorch', '--work-dir', tmp_path, '--cfg-options', *TINY]
    succeeded('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', *command, OMP_NUM_THREADS='1')
    rows = training_rows(tmp_path)
    # Four photos in batches of two: two processes need one iteration where one needs two.
    assert [row['iter'] for row in rows] == [1]
    (log,) = tmp_path.glob('*/*.log')
    assert 'Distributed training: True' in log.read_text()


def write_scalars(path: Path) -> None:
    rows = [
        dict(loss=4.0 / s, loss_cls=3.0 / s, loss_bbox=1.0 / s, epoch=1 + (s - 1) // 5, iter=s, step=s)
        for s in range(1, 11)
    ]
    rows.insert(5, {'coco/bbox_mAP_50': 0.1, 'step': 1})
    rows.append({'coco/bbox_mAP_50': 0.4, 'step': 2})
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, rows)))


def test_loss_curve_shows_what_was_logged(tmp_path, monkeypatch):
    from tools.plots import training as plot_training

    write_scalars(tmp_path / '20260101_000000/vis_data/scalars.json')
    figure = plot_training.draw(*plot_training.read(tmp_path / '20260101_000000/vis_data/scalars.json'), 'title')
    losses, scores = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in losses.get_lines()}
    assert drawn['total'] == [[s, 4.0 / s] for s in range(1, 11)]
    assert drawn['class'][-1] == [10, 0.3]
    assert scores.get_lines()[0].get_xydata().tolist() == [[5, 0.1], [10, 0.4]]

    out = tmp_path / 'new' / 'curve.png'
    succeeded('-m', 'tools.plots.training', tmp_path, '-o', out)
    assert image.imread(out)[..., :3].std() > 0.05


@pytest.mark.parametrize(('score', 'score_thr'), [(0.8, 0.3), (0.2, None)], ids=['over a score', 'as many as true'])
def test_sheet_shows_true_and_predicted_boxes(score, score_thr):
    from tools.plots import detections

    photos = json.loads(VAL.read_text())
    photo = photos['images'][0]
    assert [each['image_id'] for each in photos['annotations']].count(photo['id']) == 1
    path = VAL.parent / 'images' / photo['file_name']
    row = dict(
        img_id=photo['id'],
        img_path=str(path),
        pred_instances=dict(  # the second one scores too little, and is one too many
            bboxes=torch.tensor([[20.0, 30, 110, 90], [0, 0, 5, 5]]),
            scores=torch.tensor([score, 0.1]),
            labels=torch.tensor([2, 0]),
        ),
    )
    (axis,) = detections.draw([row], detections.read_truth(VAL), score_thr, 1, 'title').axes
    (drawn,) = (each.get_array() for each in axis.get_images())
    before = image.imread(path)
    for part, corner in zip(np.split(drawn, 2, axis=1), ((126.8, 106.0), (20, 30)), strict=True):
        rows, columns = (abs(part.astype(int) - before).max(axis=2) > 40).nonzero()
        assert (columns.min(), rows.min()) == pytest.approx(corner, abs=3)


@pytest.mark.slow
def test_a_run_becomes_a_sheet_and_a_table(run, tmp_path):
    out = tmp_path / 'sheet.png'
    succeeded(
        '-m', 'tools.plots.detections', run / 'predictions.pkl', VAL, '-o', out, '--score-thr', 0, '--max-photos', 2
    )
    assert image.imread(out)[..., :3].std() > 0.05
    table = succeeded('-m', 'tools.plots.coco_table', run / 'test')
    for label in ('AP50', 'AP, Arduino', 'AP, Raspberry'):
        assert f'| {label} |' in table


def test_table_writes_figures_as_measured(tmp_path):
    metrics = {'coco/bbox_mAP': 0.1234, 'coco/bbox_mAP_50': 0.3, 'coco/bbox_mAP_s': -1.0, 'coco/Heltec_precision': 0.05}
    file = tmp_path / 'metrics.json'
    file.write_text(json.dumps(metrics))
    lines = succeeded('-m', 'tools.plots.coco_table', file).splitlines()
    assert lines[2:] == [
        '| AP, mean over IoU 0.50 to 0.95 | 0.123 |',
        '| AP50 | 0.300 |',
        '| AP, small boxes (under 32 x 32) | - |',
        '| AP, Heltec | 0.050 |',
    ]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ('command', 'message'),
    [
        (['-m', 'tools.plots.training', 'configs'], 'configs: no */vis_data/scalars.json'),
        (['-m', 'tools.plots.detections', 'absent.pkl', VAL], 'absent.pkl: no such file'),
        (['-m', 'tools.plots.coco_table', 'configs'], 'configs: no *_*/*_*.json in it'),
    ],
    ids=['plot_training', 'draw_detections', 'coco_table'],
)
def test_wrong_paths_are_said(command, message):
    done = start(*command)
    assert done.returncode == 1
    assert message in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    'arguments',
    [['--seed', 'one'], ['--sed', '1'], ['--classes', 'many'], ['--classes', '9', '--masks']],
    ids=['not a number', 'unknown option', 'no number of classes', 'two demos'],
)
def test_demo_refuses_wrong_arguments(arguments):
    done = subprocess.run(['bash', 'tools/demo.sh', *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and arguments[-2 if arguments[0] == '--sed' else -1] in done.stderr
