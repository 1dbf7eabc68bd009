"""The benchmark and the accuracy table as a user starts them, on small shapes."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import oracle

ROOT = Path(__file__).parents[2]
TINY = ['--quick', '--dtypes', 'float32', '--shapes', '50x3']
# A process that enters a loss of its own before it starts the tool.
WITH_WRONG = """
import sys
from tools.benchmarks import contenders, losses
right = contenders.formula
def value(*inputs):
    return right(*inputs) * 1.01
def gradient(pred, *rest):
    return right(pred * 1.5 - 0.5 * pred.detach(), *rest)
def nan(pred, *rest):
    pred = pred.clone()
    pred.register_hook(lambda grad: grad * float('nan'))
    return right(pred, *rest)
for loss in (value, gradient, nan):
    contenders.CONTENDERS['wrong ' + loss.__name__] = lambda pred, loss=loss: loss
sys.exit(losses.main(sys.argv[1:]))
"""


def start(*command) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=300)


def rows(path: Path) -> list[dict]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_rows_are_measured_and_replaced_by_a_second_run(tmp_path):
    out = tmp_path / 'new' / 'benchmark.csv'
    names = ['mmdet FocalLoss', 'FusedFocalLoss (torch)']
    for shapes in (['50x3', '40x5'], ['50x3']):
        done = start('-m', 'tools.benchmarks.losses', *TINY[:-1], *shapes, '--contenders', *names, '--out', out)
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in names)
        found = rows(out)
        assert [row['shape'] for row in found] == ['50x3'] * 3 + ['40x5'] * 3
        if len(shapes) == 2:
            first = found
    assert first[:3] != found[:3] and first[3:] == found[3:]
    for row in found:
        assert row['torch'] == torch.__version__ and row['machine'] and row['commit']
        rows_, classes = map(int, row['shape'].split('x'))
        logits, inputs_of_rows = 4 * rows_ * classes, (8 + 4) * rows_
        moved = 2 * logits if row['contender'] == 'clone of the logits' else 3 * logits + 2 * inputs_of_rows
        assert float(row['gb_per_s']) == pytest.approx(moved / float(row['both_ms']) / 1e6, rel=1e-2)


def test_what_is_wrong_is_not_timed(tmp_path):
    out = tmp_path / 'benchmark.csv'
    names = ['wrong value', 'wrong gradient', 'wrong nan', 'FusedFocalLoss (torch)']
    done = start('-c', WITH_WRONG, *TINY, '--contenders', *names, '--out', out)
    assert done.returncode == 1, done.stderr
    for name in names[:3]:
        assert f'NOT TIMED: {name}: its ' in done.stdout
    assert [row['contender'] for row in rows(out)] == ['FusedFocalLoss (torch)', 'clone of the logits']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--shapes', '50'], "a shape is ROWSxCLASSES, such as 20000x80, got '50'"),
        (['--shapes', '0x80'], "got '0x80'"),
        (['--dtypes', 'float64'], 'invalid choice'),
        (['--rounds', '0'], "at least 1, got '0'"),
        (['--device', 'cuda'], 'torch sees no GPU here'),
    ],
    ids=' '.join,
)
def test_wrong_arguments_are_said(arguments, message, capsys):
    if 'cuda' in arguments and torch.cuda.is_available():
        pytest.skip('there is a GPU')
    from tools.benchmarks import losses

    with pytest.raises(SystemExit) as end:
        losses.main(arguments)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_what_contenders_are_held_to_is_the_oracle():
    from tools.benchmarks.inputs import detector
    from tools.benchmarks.losses import formula

    inputs = detector(70, 5, torch.float32, 'cpu')
    labels, weight, avg_factor = inputs.rest
    exact = oracle.sigmoid_focal_loss(*inputs.logits, labels, weight, avg_factor=avg_factor)
    value, (gradient,) = inputs.double().result(formula)
    assert labels[0] < 5
    assert value == pytest.approx(float(exact.value), rel=1e-6)
    np.testing.assert_allclose(gradient, exact.grad, rtol=1e-6)


def test_memory_is_what_a_call_holds_at_its_peak():
    """In a process of its own: a heap in which other tests have left room would give and keep the first block."""
    code = """
import torch
from tools.benchmarks.measure import peak_bytes
megabyte = torch.ones(2**18)
def hold():
    first = megabyte.repeat(64)
    del first
    return megabyte.repeat(100)
print(peak_bytes('cpu', hold))
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    peak = done.stdout.strip()
    if peak == 'None':
        pytest.skip('this system does not tell the peak of resident memory')
    assert int(peak) == pytest.approx(100 * 2**20, rel=0.05)


@pytest.mark.slow
def test_accuracy_finds_where_mmcv_and_plain_torch_fail(tmp_path):
    out = tmp_path / 'accuracy.csv'
    done = start('-m', 'tools.benchmarks.accuracy', '--out', out)
    assert done.returncode == 0, done.stderr
    found = {(row['contender'], row['dtype'], row['target']): row for row in rows(out)}
    for (name, dtype, _), row in found.items():
        if name.startswith('FusedFocalLoss'):
            limit = 1e-5 if dtype == 'float32' else 2**-10
            assert max(float(row['value_error']), float(row['grad_error'])) <= limit
    # test_mmcv_kernel.py: the loss jumps near 17, and float16 turns to NaN at 8.32.
    assert 12 < float(found["mmcv's kernel", 'float32', 'negative']['value_above']) < 17
    assert float(found["mmcv's kernel", 'float16', 'negative']['grad_above']) == pytest.approx(8.32, abs=0.01)
    assert found["mmcv's kernel", 'float16', 'negative']['value_error'] == 'nan'


def test_what_is_wrong_on_maps_and_masks_is_not_timed(tmp_path, monkeypatch, capsys):
    from tools.benchmarks import heads as benchmark_heads

    labels = (torch.rand(1000) < 0.7).long()

    def call(loss, around=lambda logits: logits):
        return lambda pred: loss(around(pred), labels, avg_factor=9.0)

    fused = benchmark_heads.FusedFocalLoss
    steps = {
        'right': call(fused()),
        'wrong value': call(fused(loss_weight=1.01)),
        'wrong gradient': call(fused(), lambda logits: 1.5 * logits - 0.5 * logits.detach()),
        'mmdet': call(benchmark_heads.FocalLoss()),
    }
    work = ([torch.randn(1000, 1)], steps)
    monkeypatch.setattr(benchmark_heads, 'WORKS', {'masks': lambda device: work})
    monkeypatch.setattr(benchmark_heads, 'TURN', 0.01)
    out = tmp_path / 'maps.csv'
    assert benchmark_heads.main(['--rounds', '1', '--out', str(out)]) == 1
    said = capsys.readouterr().out
    assert 'NOT TIMED: wrong value' in said and 'NOT TIMED: wrong gradient' in said
    assert [row['contender'] for row in rows(out)] == ['right', 'mmdet']
    assert all(float(row['both_ms']) > 0 for row in rows(out))
