"""The same RetinaNet, photos, seed and order, trained with mmdet's FocalLoss and with ours."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.heads.training_run import ITERATIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    results = {}
    for mode in ('mmdet', 'fused', 'override'):
        out = tmp_path_factory.mktemp('parity') / f'{mode}.pt'
        command = [sys.executable, '-W', 'ignore', '-m', 'tests.heads.training_run', mode, out]
        subprocess.run(command, check=True, cwd=ROOT)
        results[mode] = torch.load(out)
    return results


@pytest.mark.parametrize('mode', ('fused', 'override'))
@pytest.mark.slow
def test_training_is_that_of_mmdet(runs, mode):
    theirs, ours = runs['mmdet'], runs[mode]
    assert (theirs['loss'], ours['loss']) == ('FocalLoss', 'FusedFocalLoss')
    assert len(ours['losses']) == ITERATIONS
    for name, loss in theirs['losses'][0].items():
        assert ours['losses'][0][name] == pytest.approx(loss, rel=1e-5)
    assert ours['grads'].keys() == theirs['grads'].keys()
    for name, grad in theirs['grads'].items():
        error = (ours['grads'][name] - grad).norm()
        assert error <= 1e-5 * grad.norm(), f'{name}: {error / grad.norm():.1e}'
    for i in range(ITERATIONS):
        for name, loss in theirs['losses'][i].items():
            assert ours['losses'][i][name] == pytest.approx(loss, rel=1e-4), f'iteration {i + 1}'
