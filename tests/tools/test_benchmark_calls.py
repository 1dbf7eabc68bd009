"""The benchmark of small losses, called in two ways."""

import pytest

from tools.benchmarks import calls, tables
from tools.benchmarks.contenders import CLONE, CONTENDERS, MMDET, OURS
from tools.benchmarks.results import read

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.mark.slow
def test_each_shape_is_called_in_both_ways(monkeypatch, tmp_path):
    names = (MMDET, OURS['native'])
    monkeypatch.setattr(calls, 'SHAPES', ((30, 3), (20, 4)))
    monkeypatch.setattr(calls, 'CONTENDERS', {name: CONTENDERS[name] for name in names})
    out = tmp_path / 'calls.csv'
    assert calls.main(['--rounds', '2', '--out', str(out)]) == 0
    found = read(out)
    ours = [row for row in found if row['contender'] == OURS['native']]
    assert [(row['shape'], row['called']) for row in ours] == [
        *(('30x3', 'in a row'), ('30x3', 'in turns')),
        *(('20x4', 'in a row'), ('20x4', 'in turns')),
    ]
    assert {row['contender'] for row in found} == {*names, calls.NOTHING, CLONE}
    assert all(float(row['both_ms']) > 0 for row in found)
    # One call a turn, or as many as 10 milliseconds have room for.
    assert [int(row['runs']) for row in ours][1::2] == [2, 2] and int(ours[0]['runs']) > 2


def test_the_table_compares_within_a_way_of_calling():
    common = dict(machine='here', shape='30x3', torch='2', commit='0')
    rows = [
        {**common, 'called': called, 'contender': name, 'both_ms': ms}
        for called, times in (('in a row', '0.3 0.4 0.1'), ('in turns', '0.6 0.9 0.3'))
        for name, ms in zip((*tables.PEERS, OURS['native']), times.split(), strict=True)
    ]
    lines = tables.calls(rows).splitlines()
    assert lines[-2] == '| (30, 3) | in a row | 300 | 400 | 100 | 3.0 x | 4.0 x |'
    assert lines[-1] == '| (30, 3) | in turns | 600 | 900 | 300 | 2.0 x | 3.0 x |'
