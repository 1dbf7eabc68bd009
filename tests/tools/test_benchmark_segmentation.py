"""The benchmark of mmsegmentation's loss, where that is installed."""

import pytest


def test_ours_and_theirs_are_timed_on_the_same_maps(tmp_path, capsys):
    pytest.importorskip('mmseg', reason='needs mmseg, which is not installed')
    from tools.benchmarks import results, segmentation

    segmentation.main(['--shape', '1', '7', '64', '64', '--out', str(tmp_path / 'maps.csv')])
    rows = results.read(tmp_path / 'maps.csv')
    assert [row['contender'] for row in rows] == [
        'FusedSegFocalLoss',
        'FusedSegFocalLoss, per class',
        'mmseg FocalLoss',
    ]
    assert all(float(row['both_ms']) > 0 and row['work'] == 'FCN of mmseg, (1, 7, 64, 64) maps' for row in rows)
    assert 'mmseg FocalLoss' in capsys.readouterr().out
