"""What a comparison of losses leaves: the rows of its table and the curves are those of its records."""

import json
from pathlib import Path

import pytest

from tools.training import comparison, train_one


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


def test_rows_and_curves_are_of_what_was_recorded(tmp_path):
    losses = [comparison.Loss('A', 'A', {}), comparison.Loss('B,gamma=[1, 2]', 'B', {})]
    for scale, loss in enumerate(losses, 1):
        write_run(comparison.folder_of(tmp_path, loss), scale)
    assert comparison.row_of(losses[1], tmp_path, ['coco/bbox_mAP']) == {
        'loss': 'B,gamma=[1, 2]',
        'coco/bbox_mAP': '0.5',
        'training loss': '0.6',
        'time an iteration (ms)': '100.0',
        'peak memory (MiB)': '10',
        'iterations': '10',
    }
    figure = comparison.draw(losses, tmp_path, ['coco/bbox_mAP'], 'title')
    classification, others, metric = figure.axes
    assert [line.get_label() for line in classification.get_lines()] == ['A', 'B,gamma=[1, 2]']
    assert classification.get_lines()[1].get_xydata().tolist() == [[i, 2 / i] for i in range(1, 11)]
    assert others.get_lines()[0].get_xydata().tolist() == [[i, pytest.approx(2 / i)] for i in range(1, 11)]
    assert metric.get_lines()[0].get_xydata().tolist() == [[5, 0.25], [10, 0.25]]


def test_a_half_line_costs_no_other(tmp_path):
    (tmp_path / 'records.jsonl').write_text('{"iter": 1, "loss": 2.0}\n{"iter": 2, "lo')
    recorder = train_one.Recorder(tmp_path, print, 1)
    recorder.write(iter=2, loss=1.0)
    recorder.file.close()
    assert comparison.records(tmp_path)[0] == [dict(iter=1, loss=2.0), dict(iter=2, loss=1.0)]


def test_many_losses_have_different_lines(tmp_path):
    losses = [comparison.Loss(name, name, {}) for name in 'ABCDEFGHIJKLMNOP']
    for loss in losses:
        write_run(comparison.folder_of(tmp_path, loss), 1)
    lines = comparison.draw(losses, tmp_path, [], 'title').axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(losses)
