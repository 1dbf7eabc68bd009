"""The benchmark of whole training steps, on a small detector and small photos."""

import copy
from types import SimpleNamespace

import pytest
from mmengine.logging import MMLogger

from tests.heads import detectors
from tools.benchmarks import steps as benchmark_steps
from tools.benchmarks import tables
from tools.benchmarks.results import read

SOURCE = dict(machine='here', torch='2', triton='', commit='0')
pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def steps(monkeypatch):
    small = dict(
        DETECTORS={'RetinaNet': benchmark_steps.Detector('of the tests', 'FusedRetinaHead', True)},
        SCALE=(64, 48),
        RUNS=1,
        get_config=lambda _: SimpleNamespace(model=copy.deepcopy(detectors.model_config('RetinaNet'))),
    )
    for name, value in small.items():
        monkeypatch.setattr(benchmark_steps, name, value)
    benchmark_steps.photos.cache_clear()
    logger = MMLogger.get_current_instance()
    level = logger.level
    yield benchmark_steps
    logger.setLevel(level)
    benchmark_steps.photos.cache_clear()


@pytest.mark.slow
def test_every_contender_is_timed_and_shown(steps, tmp_path):
    out = tmp_path / 'steps.csv'
    assert steps.run(out, SOURCE) == 0
    found = read(out)
    assert [row['contender'] for row in found] == ['stock', 'fused loss', 'zero-copy head', 'cut=True']
    for row in found:
        assert float(row['step_ms']) > 0 and int(row['extra_mib']) > 0
        # Of a head whose logits are no tensor the loss can't be called alone.
        assert bool(row['loss_ms']) == (row['contender'] in ('stock', 'fused loss'))
        assert float(row['loss_ms'] or 0) < float(row['step_ms'])
    table = tables.steps(found)
    assert '| RetinaNet |' in table and f'{found[0]["step_ms"]} ms, {found[0]["extra_mib"]} MiB' in table


@pytest.mark.slow
def test_other_losses_are_not_timed(steps, monkeypatch, tmp_path, capsys):
    right = steps.model_config

    def of_another_weight(detector, contender):
        config = right(detector, contender)
        config.bbox_head.loss_cls.loss_weight = 1.001 if contender == steps.CUT else 1.0
        return config

    monkeypatch.setattr(steps, 'model_config', of_another_weight)
    out = tmp_path / 'steps.csv'
    assert steps.run(out, SOURCE) == 1
    assert 'NOT TIMED: RetinaNet, cut=True: ValueError: its loss' in capsys.readouterr().out
    assert 'cut=True' not in [row['contender'] for row in read(out)]


@pytest.mark.slow
def test_the_detectors_of_the_benchmark_have_the_heads_that_it_names():
    for detector in benchmark_steps.DETECTORS.values():
        for contender in benchmark_steps.contenders(detector):
            head = benchmark_steps.model_config(detector, contender).bbox_head
            is_fused = head.loss_cls.type.startswith('Fused')
            assert is_fused == (contender != benchmark_steps.STOCK)
            assert (head.type == detector.zero_copy) == (contender in (benchmark_steps.ZERO_COPY, benchmark_steps.CUT))
            assert head.get('cut', False) == (contender == benchmark_steps.CUT)
