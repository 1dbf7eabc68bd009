"""Comparing losses: one training for each, the same after an interruption, and what the comparison leaves."""

import csv
import importlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py'
LOSSES = ['FocalLoss', 'FusedFocalLoss,gamma=2.0']
# Three iterations an epoch, checkpoints within epochs.
ARGUMENTS = ['--iters', '5', '--save-every', '2', '--metric', 'coco/bbox_mAP_50']
OPTIONS = [
    '--cfg-options',
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.indices=6',
    'val_dataloader.dataset.indices=2',
    'model.test_cfg.score_thr=0.0',
]


@pytest.fixture(scope='module')
def tools():
    names = ('compare_losses', 'train_one', 'comparison')
    return tuple(importlib.import_module(f'tools.training.{name}') for name in names)


def command(work: Path, *losses: str, arguments=ARGUMENTS) -> list[str]:
    return [CONFIG, '--losses', *(losses or LOSSES), '--work-dir', str(work), *arguments, *OPTIONS]


def processed(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, 'tools/compare_losses.py', *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '2'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal, though a shell lets what it starts in the background ignore an interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def run(tools, monkeypatch, capsys):
    """Runs the tool in this process: its status, and what it prints."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['compare_losses.py', *map(str, arguments)])
        monkeypatch.chdir(ROOT)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            status = tools[0].main()
        except SystemExit as exit:
            status = exit.code
        finally:
            logging.disable(logging.NOTSET)
            signal.signal(signal.SIGTERM, handler)
        return status, ''.join(capsys.readouterr())

    return run


def table(work: Path) -> list[dict]:
    with (work / 'table.csv').open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def work(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp('work')
    running = processed(*command(work))
    output = running.communicate(timeout=600)
    assert running.returncode == 0, output
    return work


def test_table_and_figure(work):
    theirs, ours = table(work)
    assert [theirs['loss'], ours['loss']] == LOSSES
    # The same loss, weights and batches: the same training.
    assert float(ours['training loss']) == pytest.approx(float(theirs['training loss']), rel=1e-3)
    assert 0.5 < float(ours['training loss']) < 5
    assert 0 <= float(ours['coco/bbox_mAP_50']) <= 1
    assert ours['iterations'] == '5'
    assert float(ours['time an iteration (ms)']) > 1 and float(ours['peak memory (MiB)']) > 100
    cells = [line.strip('| \n').split(' | ') for line in (work / 'table.md').read_text().splitlines()]
    assert cells[0] == list(ours) and cells[2:] == [list(theirs.values()), list(ours.values())]
    assert image.imread(work / 'curves.png')[..., :3].std() > 0.05


def test_started_again_it_has_nothing_to_do(work, run):
    before = {path: path.stat().st_mtime_ns for path in work.glob('*/*')}
    text = (work / 'table.md').read_text()
    status, output = run(*command(work))
    assert status == 0 and text in output
    assert (work / 'table.md').read_text() == text
    assert {path: path.stat().st_mtime_ns for path in work.glob('*/*')} == before


def test_changed_arguments_are_noticed(work, run):
    status, output = run(*command(work, arguments=['--iters', '6']))
    assert status == 2
    assert 'was trained with another config or arguments' in output and '-    max_iters=5,' in output
    assert '--restart' in output and (work / 'FocalLoss/result.json').exists()


def test_unknown_metric_lists_those_there_are(work, run):
    status, output = run(*command(work, arguments=[*ARGUMENTS[:4], '--metric', 'mAP']))
    assert status == 2 and "no metric 'mAP'; the evaluation gives " in output and 'coco/bbox_mAP_50' in output


def test_a_loss_that_does_not_fit_stops_it_before_training(tmp_path, run):
    status, output = run(*command(tmp_path, 'FusedFocalLoss', 'FusedGaussianFocalLoss'))
    assert status == 1
    assert 'FusedGaussianFocalLoss does not fit: bbox_head (RetinaHead) hands over integer labels' in output
    assert list(tmp_path.glob('*/records.jsonl')) == []


def test_unknown_loss(tmp_path, run):
    status, output = run(*command(tmp_path, 'FusedFocal'))
    assert status == 2 and "no loss is called 'FusedFocal'. Did you mean FusedFocalLoss" in output


def test_two_comparisons_in_one_folder(tools, tmp_path, run):
    with tools[0].lock(tmp_path):
        status, output = run(*command(tmp_path))
    assert status == 2 and 'another comparison is at work there' in output


def test_a_training_that_fails_is_told(tools, tmp_path, run):
    options = [*OPTIONS, 'train_dataloader.dataset.ann_file=absent.json']
    status, output = run(CONFIG, '--losses', 'FusedFocalLoss', '--work-dir', tmp_path, *ARGUMENTS, *options)
    assert status == 1
    assert 'FusedFocalLoss: training failed, see ' in output and 'absent.json' in output


def trained_for_a_while(work: Path, iterations: int) -> subprocess.Popen:
    """A comparison that has trained its second loss for some iterations."""
    file = work / 'FusedFocalLoss_gamma=2.0/records.jsonl'
    running = processed(*command(work))
    for _ in range(6000):
        if file.exists() and len(file.read_text().splitlines()) >= iterations:
            return running
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.kill()
    raise AssertionError(f'no {iterations} iterations in 5 minutes')


@pytest.mark.slow
@pytest.mark.parametrize('sent', [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_and_started_again_the_result_is_the_same(work, tmp_path, run, sent):
    running = trained_for_a_while(tmp_path, 3)
    running.send_signal(sent)
    _, stderr = running.communicate(timeout=60)
    if sent is not signal.SIGKILL:
        assert running.returncode == 130 and 'the same command goes on from here' in stderr
    finished = (tmp_path / 'FocalLoss/records.jsonl').stat().st_mtime_ns
    status, output = run(*command(tmp_path))
    assert status == 0, output
    assert (tmp_path / 'FocalLoss/records.jsonl').stat().st_mtime_ns == finished
    resumed_at = re.search(r'FusedFocalLoss,gamma=2.0: (\d) of 5 iterations done', output)[1]
    assert resumed_at in '24'
    measured = ('time an iteration (ms)', 'peak memory (MiB)')
    whole, resumed = ([{**row, **dict.fromkeys(measured)} for row in table(folder)] for folder in (work, tmp_path))
    assert resumed == whole


# The loop.


class ToyData(BaseDataset):
    def load_data_list(self):
        return [dict(number=i) for i in range(6)]

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([index, np.random.rand()], dtype=torch.float32))


class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(count=len(results))


class ToyModel(BaseModel):
    """Order of data, their noise and dropout all show in the weights."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        value = self.layer(torch.dropout(torch.stack(list(inputs)), 0.5, self.training)).square().mean()
        return dict(loss=value) if mode == 'loss' else [value]


class Interrupt(Hook):
    def __init__(self, after: int | None) -> None:
        self.after, self.validated = after, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.after:
            raise KeyboardInterrupt

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.validated.append(runner.iter)


def train_toy(folder: Path, loop: dict, sampler: dict, stop: int | None = None) -> tuple[Runner, list[int]]:
    torch.manual_seed(0)
    interrupt = Interrupt(stop)
    loader = dict(batch_size=2, num_workers=0, dataset=ToyData())
    runner = Runner(
        ToyModel(),
        str(folder),
        train_dataloader=dict(loader, sampler=sampler),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(),
        val_evaluator=Evaluator(ToyMetric()),
        train_cfg=dict(type='ResumableTrainLoop', seed=1, max_iters=8, **loop),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=dict(type='StepLR', by_epoch=True, step_size=1, gamma=0.5),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2)),
        resume=True,
        randomness=dict(seed=1),
        experiment_name=f'{folder.name}_{stop}',
    )
    runner.register_hook(interrupt)
    if stop:
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    else:
        runner.train()
    return runner, interrupt.validated


@pytest.mark.parametrize('stop', [1, 4, 7])
@pytest.mark.parametrize(
    ('loop', 'sampler', 'validations'),
    [
        (dict(max_epochs=4), dict(type='DefaultSampler', shuffle=True), [3, 6, 8]),
        (dict(val_every=4), dict(type='InfiniteSampler', shuffle=True), [4, 8]),
    ],
    ids=['epochs', 'iterations'],
)
def test_an_interrupted_loop_ends_as_a_whole_one(tools, tmp_path, loop, sampler, validations, stop):
    whole, seen = train_toy(tmp_path / 'whole', loop, sampler)
    assert seen == validations
    _, first = train_toy(tmp_path / 'parts', loop, sampler, stop)
    with tools[1].safe_checkpoints():
        resumed, second = train_toy(tmp_path / 'parts', loop, sampler)
    assert sorted({*first, *second}) == validations
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


# Table and figure.


def write_run(folder: Path, scale: float) -> None:
    folder.mkdir(parents=True)
    rows = [
        dict(iter=i, peak=i * 2**20, time=0.5 if i == 1 else 0.1, loss=3 * scale / i, loss_cls=scale / i)
        for i in range(1, 11)
    ]
    rows.insert(5, dict(iter=3, peak=2**20, time=0.1, loss=99.0, loss_cls=9.0))
    rows.insert(6, rows.pop(2))
    rows.append(dict(iter=5, metrics={'coco/bbox_mAP': 0.25}))
    rows.append(dict(iter=10, metrics={'coco/bbox_mAP': scale / 4}))
    (folder / 'records.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n{"iter": 11, "lo')
    (folder / 'result.json').write_text(json.dumps(dict(iters=10, metrics=rows[-1]['metrics'])))


def test_rows_and_curves_are_of_what_was_recorded(tools, tmp_path):
    results = tools[2]
    losses = [results.Loss('A', 'A', {}), results.Loss('B,gamma=[1, 2]', 'B', {})]
    for scale, loss in enumerate(losses, 1):
        write_run(results.folder_of(tmp_path, loss), scale)
    assert results.row_of(losses[1], tmp_path, ['coco/bbox_mAP']) == {
        'loss': 'B,gamma=[1, 2]',
        'coco/bbox_mAP': '0.5',
        'training loss': '0.6',
        'time an iteration (ms)': '100.0',
        'peak memory (MiB)': '10',
        'iterations': '10',
    }
    figure = results.draw(losses, tmp_path, ['coco/bbox_mAP'], 'title')
    classification, others, metric = figure.axes
    assert [line.get_label() for line in classification.get_lines()] == ['A', 'B,gamma=[1, 2]']
    assert classification.get_lines()[1].get_xydata().tolist() == [[i, 2 / i] for i in range(1, 11)]
    assert others.get_lines()[0].get_xydata().tolist() == [[i, pytest.approx(2 / i)] for i in range(1, 11)]
    assert metric.get_lines()[0].get_xydata().tolist() == [[5, 0.25], [10, 0.25]]


def test_a_half_line_costs_no_other(tools, tmp_path):
    _, trainer, results = tools
    (tmp_path / 'records.jsonl').write_text('{"iter": 1, "loss": 2.0}\n{"iter": 2, "lo')
    recorder = trainer.Recorder(tmp_path, print, 1)
    recorder.write(iter=2, loss=1.0)
    recorder.file.close()
    assert results.records(tmp_path)[0] == [dict(iter=1, loss=2.0), dict(iter=2, loss=1.0)]


def test_many_losses_have_different_lines(tools, tmp_path):
    results = tools[2]
    losses = [results.Loss(name, name, {}) for name in 'ABCDEFGHIJKLMNOP']
    for loss in losses:
        write_run(results.folder_of(tmp_path, loss), 1)
    lines = results.draw(losses, tmp_path, [], 'title').axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(losses)
