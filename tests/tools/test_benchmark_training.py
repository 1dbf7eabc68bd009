"""The benchmark of a training step, on a model and images that a CPU has done with in no time."""

import pytest
import torch
from mmengine.logging import MMLogger

from tests.heads import detectors
from tools.benchmarks import training as benchmark_training
from tools.benchmarks.results import read


@pytest.fixture
def training(monkeypatch):
    monkeypatch.setattr(benchmark_training, 'model_config', lambda: detectors.model_config('RetinaNet'))
    for name, small in dict(SIZE=(64, 64), IMAGES=1, WARM_UP=0, RUNS=2).items():
        monkeypatch.setattr(benchmark_training, name, small)
    logger, threads = MMLogger.get_current_instance(), torch.get_num_threads()
    level = logger.level
    logger.setLevel('WARNING')
    torch.set_num_threads(1)  # threads that wait for each other over so little work take most of the time
    yield benchmark_training
    torch.set_num_threads(threads)
    logger.setLevel(level)


@pytest.mark.slow
def test_a_training_step_of_each_loss(training, monkeypatch, tmp_path, capsys):
    from mmdet.models.losses import FocalLoss
    from mmdet.registry import MODELS

    class WrongFocalLoss(FocalLoss):
        def forward(self, *args, **kwargs):
            return 1.1 * super().forward(*args, **kwargs)

    monkeypatch.setitem(MODELS._module_dict, 'WrongFocalLoss', WrongFocalLoss)
    contenders = training.CONTENDERS
    monkeypatch.setattr(training, 'CONTENDERS', (*contenders, ('RetinaHead', 'WrongFocalLoss')))
    monkeypatch.setattr(training, 'DTYPES', {'float32': torch.float32})
    out, source = tmp_path / 'training.csv', dict(machine='here', torch='', triton='', commit='')
    assert training.run('cpu', out, source) == 1
    assert 'RetinaHead, WrongFocalLoss: ValueError: its class loss is' in capsys.readouterr().out
    found = read(out)
    assert [row['contender'] for row in found] == [f'{head}, {loss}' for head, loss in contenders]
    right = float(found[0]['loss_cls'])
    for row in found:
        assert float(row['loss_cls']) == pytest.approx(right, rel=1e-5) and float(row['step_ms']) > 0


def test_a_training_step_in_half_precision(training):
    """By autocast: close to float32's, but not the same."""
    full, half = (
        training.step(training.build('FusedRetinaHead', 'FusedFocalLoss', 'cpu'), precision, 'cpu')().item()
        for precision in ('float32', 'bfloat16')
    )
    assert 0 < abs(half - full) < 0.01 * full


def test_a_training_step_trains(training):
    """The same weights at first; a step changes them, by way of a gradient that the next one does not find."""
    first, second = (training.build(head, loss, 'cpu') for head, loss in training.CONTENDERS[1:])
    before = {name: value.clone() for name, value in first.state_dict().items()}
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in before.items())
    training.step(first, 'float32', 'cpu')()
    changed = {name for name, value in first.state_dict().items() if not torch.equal(value, before[name])}
    assert {'bbox_head.retina_cls.weight', 'bbox_head.retina_reg.weight', 'neck.fpn_convs.0.conv.weight'} <= changed
    assert all(parameter.grad is None for parameter in first.parameters())
