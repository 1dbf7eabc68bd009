"""Eighteen detectors on real photos: the same seed, weights and order, with mmdet's losses and with ours.

Ours come by focal_plugin.override, for some also in heads that copy no class logits, and for five in heads that hold none.

Two runs whose gradients differ by rounding are not the same for long: sooner or later an activation is on the other side of
its ReLU, or a sample on the other side of an assignment, and one iteration's gradients differ by a thousandth. Which
iteration depends on the seed and the processor. So gradients are compared twice: at each iteration's weights of mmdet's run,
where only the losses differ; and in the runs left alone, where of a few seeds one has no such flip.
"""

import functools
import subprocess
import sys

import pytest
import torch

from tests.heads.detectors import CUT, DETECTORS, FUSED, MAPS, ROOT, error
from tests.heads.parity_run import ITERATIONS

WITHOUT_LOGITS = [FUSED[name][0] for name in CUT if not name.startswith('equalized')]
WITHOUT_COPIES = [FUSED[name][0] for name in MAPS]
CASES = [
    *((name, 'override') for name in DETECTORS),
    *((name, 'cut') for name in WITHOUT_LOGITS),
    *((name, 'maps') for name in WITHOUT_COPIES),
]
SEEDS = range(6)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    @functools.lru_cache(maxsize=2)  # of the groups below; a run holds some hundred megabytes of gradients
    def runs(names: tuple[str, ...], ours: str) -> tuple[dict, dict]:
        """What mmdet's losses and ours gave."""
        folder = tmp_path_factory.mktemp('parity')
        for mode in ('mmdet', ours):
            command = [sys.executable, '-W', 'ignore', '-m', 'tests.heads.parity_run', mode, folder, *names]
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE)
        return tuple(torch.load(folder / f'{mode}.pt') for mode in ('mmdet', ours))

    return runs


@pytest.fixture
def pair(run, name, mode):
    group = {'override': DETECTORS, 'cut': WITHOUT_LOGITS, 'maps': WITHOUT_COPIES}[mode]
    theirs, ours = run(tuple(f'{other}:0' for other in group), mode)
    return theirs[f'{name}:0'], ours[f'{name}:0']


@pytest.mark.parametrize(('name', 'mode'), CASES)
def test_only_the_losses_are_others(name, mode, pair):
    theirs, ours = pair
    assert not any(kind.startswith('Fused') for kind in theirs['kinds'])
    assert any(kind.startswith('Fused') for kind in ours['kinds'])
    assert [kind.removeprefix('Fused') for kind in ours['kinds']] == theirs['kinds']


@pytest.mark.parametrize(('name', 'mode'), CASES)
def test_losses_are_those_of_mmdet(name, mode, pair):
    theirs, ours = pair
    for iteration in range(1 if name == 'QueryInst' else ITERATIONS):
        bound = 1e-4 if iteration else 1e-5
        expected = {key: pytest.approx(value, rel=bound) for key, value in theirs['losses'][iteration].items()}
        assert ours['losses'][iteration] == expected, iteration


@pytest.mark.parametrize(('name', 'mode'), CASES)
def test_gradients_at_the_same_weights(name, mode, pair):
    theirs, ours = pair
    assert error(ours['grads'][0], theirs['grads'][0]) <= 1e-5
    for iteration in range(ITERATIONS):
        assert error(ours['at their weights'][iteration], theirs['grads'][iteration]) <= 1e-5, iteration


@pytest.mark.parametrize('name', [name for name in DETECTORS if name != 'QueryInst'])  # its assignments flip at once
def test_gradients_of_runs_left_alone(name, run):
    names = tuple(f'{name}:{seed}' for seed in SEEDS)
    theirs, ours = run(names, 'override')
    worst = [max(map(error, ours[key]['grads'], theirs[key]['grads'])) for key in names]
    print(name, ' '.join(f'{value:.0e}' for value in worst))
    assert min(worst) <= 1e-4
    # A wrong gradient would show before the first step, in all seeds.
    assert all(error(ours[key]['grads'][0], theirs[key]['grads'][0]) <= 1e-5 for key in names)
