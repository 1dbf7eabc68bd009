"""The benchmark of class convolution and loss: its contenders agree, and what it says of their memory is so."""

import csv
import json

import pytest
import torch

from tools.benchmarks import tables
from tools.benchmarks.measure import allocated_bytes

WORKS = {'nine anchors': (20, 9, 3), 'one anchor, 1 x 1': (300, 1, 1)}


@pytest.fixture
def tool(monkeypatch):
    from tools.benchmarks import cut

    monkeypatch.setattr(cut, 'WORKS', {name: cut.Work(*each) for name, each in WORKS.items()})
    monkeypatch.setattr(cut, 'CHANNELS', 16)
    small = dict(type='FusedRetinaHead', loss='FusedFocalLoss', cut=0.05)
    monkeypatch.setattr(cut, 'CONTENDERS', {**cut.CONTENDERS, 'cut=0.05': small})
    return cut


@pytest.mark.parametrize('work', WORKS)
def test_contenders_agree_with_mmdets_head_and_loss(tool, work):
    assert len(tool.CONTENDERS) == 7
    for contender in tool.CONTENDERS:
        assert tool.wrong(tool.WORKS[work], contender, 'cpu') is None, contender


def test_a_step_differentiates_features_weight_and_bias_and_nothing_else(tool):
    step = tool.Step(tool.WORKS['nine anchors'], 'cut=0.05', 128, 'cpu')
    value, gradients = step.result()
    assert value > 0 and all(gradient.abs().max() > 0 for gradient in gradients)
    assert {id(leaf) for leaf in step.leaves[-2:]} == {id(parameter) for parameter in step.head.parameters()}


def test_another_loss_is_wrong(tool, monkeypatch):
    head_of = tool.head_of

    def weighted(*args, **arguments):
        head = head_of(*args, **arguments)
        head.loss_cls.loss_weight = 1.001 if arguments['loss'] == 'FusedFocalLoss' else 1.0
        return head

    monkeypatch.setattr(tool, 'head_of', weighted)
    work = tool.WORKS['nine anchors']
    assert tool.wrong(work, tool.MMDET, 'cpu') is None
    assert 'its value is' in tool.wrong(work, 'cut=8', 'cpu')
    with pytest.raises(ValueError, match='its value is'):
        tool.figures(work, 'cut=8', 'cpu', timed=False)


@pytest.mark.slow
def test_memory_is_of_logits_or_of_a_chunk(tool, monkeypatch):
    monkeypatch.setattr(tool, 'SIDE', 256)
    work = tool.WORKS['one anchor, 1 x 1']
    allocated = {name: tool.figures(work, name, 'cpu', timed=False)['allocated'] for name in tool.CONTENDERS}
    logits = work.logits_bytes
    assert logits == 4 * 2 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2) * 300
    assert allocated[tool.MMDET] > 9 * logits
    assert 2 * logits < allocated['FusedRetinaHead'] < allocated['RetinaHead, FusedFocalLoss']
    assert allocated['cut=0.05'] < 0.4 * logits


def test_allocated_bytes_are_the_most_at_once():
    x = torch.zeros(1000)

    def run():
        torch.stack([x, x]).sum()  # 8000 bytes, freed
        y = x + 1
        return y * y + 1  # 4000 each, the product is freed after the sum

    run()
    assert 12_000 <= allocated_bytes(run) < 12_500
    assert allocated_bytes(lambda: None) == 0


def test_rounds_become_rows_and_a_table(tool, monkeypatch, tmp_path, capsys):
    calls = []

    def measured(work, contender, device, timed):
        calls.append(contender)
        if contender == tool.MMDET and work == 'one anchor, 1 x 1':
            return None
        times = [10.0, 20.0, 30.0] if contender == 'FusedRetinaHead' else [30.0]
        return dict(peak=5_000_000, allocated=4_000_000, times=times if timed else [])

    monkeypatch.setattr(tool, 'measured', measured)
    out = tmp_path / 'cut.csv'
    assert tool.main(['--out', str(out), '--rounds', '2']) == 1  # one was not measured
    assert calls[:7] == calls[7:14] == list(tool.CONTENDERS)  # they take turns
    with out.open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert (
        len(rows) == 13
        and {row['process_mb'] for row in rows} == {'5'}
        and {row['allocated_mb'] for row in rows} == {'4'}
    )
    (first,) = (row for row in rows if (row['work'], row['contender']) == ('nine anchors', 'FusedRetinaHead'))
    assert (first['both_ms'], first['runs']) == ('20', '6')
    assert tables.cut(rows).count('| cut=8 | 30 | 1.50 | 4 | 5 |') == 2
    assert tool.main(['--out', str(out), '--memory', '--only', 'nine anchors: cut=8']) == 0
    with out.open(newline='') as file:
        again = list(csv.DictReader(file))
    assert [row['both_ms'] for row in again if row['contender'] == 'cut=8'] == ['', '30']
    assert '| cut=8 | - | - | 4 | 5 |' in tables.cut(again)


def test_a_gpu_is_measured_in_one_process_and_its_own_work_beside_the_time(tool, monkeypatch, tmp_path, capsys):
    def figures(work, contender, device, timed):
        if contender == 'cut=8':
            raise ValueError('its value is 1')
        return dict(
            peak=5_000_000, allocated=4_000_000, times=[20.0], gpu=5.0 if contender == 'FusedRetinaHead' else 10.0
        )

    monkeypatch.setattr(tool, 'figures', figures)
    monkeypatch.setattr(tool.options, 'parse', lambda parser, arguments: parser.parse_args(arguments))
    monkeypatch.setattr(tool.options, 'begin', lambda device: dict(machine='a GPU', torch='2', commit='c'))
    out = tmp_path / 'cut.csv'
    assert tool.main(['--device', 'cuda', '--out', str(out), '--rounds', '1']) == 1
    assert 'NOT MEASURED: cut=8: ValueError: its value is 1' in capsys.readouterr().out
    with out.open(newline='') as file:
        table = tables.cut(list(csv.DictReader(file)))
    assert table.count('| cut=32 | 20 | 1.00 | 10 | 2.00 | 4 |') == 2


@pytest.mark.slow
def test_a_process_of_its_own_tells_its_figures(tool, capsys):
    assert tool.main(['--one', 'nine anchors', 'cut=8']) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() == {'peak', 'allocated', 'times', 'gpu'} and found['gpu'] is None
    assert found['allocated'] > 0 and len(found['times']) >= 2 and min(found['times']) > 0


@pytest.mark.slow
def test_a_process_that_fails_is_said(tool, capsys):
    assert tool.measured('no such work', 'cut=8', 'cpu', timed=False) is None
    assert "NOT MEASURED: cut=8: KeyError: 'no such work'" in capsys.readouterr().out
