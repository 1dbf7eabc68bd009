"""Comparing losses: one training for each, the same after an interruption, and what the comparison leaves."""

import csv
import importlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matplotlib import image
from mmengine.config import Config

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
def tool():
    return importlib.import_module('tools.training.compare_losses')


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
def run(tool, monkeypatch, capsys):
    """Runs the tool in this process: its status, and what it prints."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['compare_losses.py', *map(str, arguments)])
        monkeypatch.chdir(ROOT)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            status = tool.main()
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_started_again_it_has_nothing_to_do(work, run):
    before = {path: path.stat().st_mtime_ns for path in work.glob('*/*')}
    text = (work / 'table.md').read_text()
    status, output = run(*command(work))
    assert status == 0 and text in output
    assert (work / 'table.md').read_text() == text
    assert {path: path.stat().st_mtime_ns for path in work.glob('*/*')} == before


@pytest.mark.slow
def test_changed_arguments_are_noticed(work, run):
    status, output = run(*command(work, arguments=['--iters', '6']))
    assert status == 2
    assert 'was trained with another config or arguments' in output and '-    max_iters=5,' in output
    assert '--restart' in output and (work / 'FocalLoss/result.json').exists()


@pytest.mark.parametrize(('has_begun', 'load_from', 'resume'), [(False, 'a.pth', False), (True, None, True)])
def test_weights_to_start_from_are_not_a_training_to_go_on_with(has_begun, load_from, resume):
    config = Config(dict(load_from='a.pth', resume=True))
    importlib.import_module('tools.training.train_one').continue_or_begin(config, has_begun)
    assert (config.load_from, config.resume) == (load_from, resume)


@pytest.mark.slow
def test_unknown_metric_lists_those_there_are(work, run):
    status, output = run(*command(work, arguments=[*ARGUMENTS[:4], '--metric', 'mAP']))
    assert status == 2 and "no metric 'mAP'; the evaluation gives " in output and 'coco/bbox_mAP_50' in output


@pytest.mark.slow
def test_a_loss_that_does_not_fit_stops_it_before_training(tmp_path, run):
    status, output = run(*command(tmp_path, 'FusedFocalLoss', 'FusedGaussianFocalLoss'))
    assert status == 1
    assert 'FusedGaussianFocalLoss does not fit: bbox_head (RetinaHead) hands over integer labels' in output
    assert list(tmp_path.glob('*/records.jsonl')) == []


def test_unknown_loss(tmp_path, run):
    status, output = run(*command(tmp_path, 'FusedFocal'))
    assert status == 2 and "no loss is called 'FusedFocal'. Did you mean FusedFocalLoss" in output


def test_two_comparisons_in_one_folder(tool, tmp_path, run):
    with tool.lock(tmp_path):
        status, output = run(*command(tmp_path))
    assert status == 2 and 'another comparison is at work there' in output


@pytest.mark.slow
def test_a_training_that_fails_is_told(tool, tmp_path, run):
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
