"""configs/hosts: a training step of each where its codebase is installed, and the call of its head everywhere."""

import importlib.util
import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch
from mmdet.models import losses as stock
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import MODELS, DefaultScope, Registry

from focal_plugin.losses.base import FusedLoss
from tests.configs import FOLDER
from tests.processes import run
from tools.benchmarks import version_tables
from tools.maintain import host_step, hosts

HERE = {path.stem: path for path in sorted((FOLDER / 'hosts').glob('*/*.py'))}
MMDETS = [stem for stem in HERE if not stem.endswith(('_override', '_fused-seg-focal'))]


@pytest.mark.parametrize('stem', HERE)
def test_a_training_step_gives_the_stock_losses(stem):
    host = HERE[stem].parent.name
    if importlib.util.find_spec(host) is None:
        pytest.skip(f'needs {host}, which is not installed: python -m tools.maintain.hosts installs it elsewhere')
    assert hosts.is_right(host_step.compared(HERE[stem]))


def scores(*shape):
    return torch.rand(shape) * (torch.rand(shape) > 0.8)


def rows(classes):
    return torch.randn(60, classes), torch.randint(0, classes + 1, (60,)), torch.rand(60)


def rtmdet():
    pred, labels, weight = rows(80)
    return pred, (labels, scores(60)), weight, 7.5


def yolov5():
    return torch.randn(2, 3, 8, 8), scores(2, 3, 8, 8)


def ppyoloe():
    return torch.randn(2, 30, 80), scores(2, 30, 80)


def centerpoint():
    heat = torch.rand(2, 2, 16, 16)
    return (
        torch.randn(2, 2, 16, 16).sigmoid().clamp(1e-4, 1 - 1e-4),
        heat.masked_fill(heat > 0.9, 1.0),
        None,
        None,
        None,
        5,
    )


def rotated_retinanet():
    pred, labels, weight = rows(15)
    return pred, labels, weight, 9.0


CALLS = {
    'rtmdet': [rtmdet],
    'yolov5': [yolov5],
    'ppyoloe': [ppyoloe],
    'centerpoint': [centerpoint],
    'rotated-retinanet': [rotated_retinanet],
}


def scope_of(host: str) -> str:
    """That of the codebase, or of a stand-in for it."""
    scope = host if importlib.util.find_spec(host) else f'stand_in_for_{host}'
    if scope not in MODELS.children and scope != host:
        Registry(MODELS.name, parent=MODELS, scope=scope, locations=[])
    return scope


def losses_of(stem: str) -> list[dict]:
    """Those that a config writes, read without its base."""
    return list(host_step.losses_of(runpy.run_path(str(HERE[stem]))['model']))


def read(loss: dict) -> dict:
    return {key: value for key, value in loss.items() if key != '_delete_'}


def assert_same(ours, theirs, pred, *others, **named) -> None:
    """Two losses of a call have the same value and gradient."""
    found = []
    for loss in (ours, theirs):
        leaf = pred.clone().requires_grad_()
        value = loss(leaf, *others, **named)
        value.backward()
        found.append((value.detach(), leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ('stem', 'call'), [(stem, call) for stem in MMDETS for call in CALLS[stem.partition('_')[0].partition('-rbox')[0]]]
)
def test_the_call_of_the_head_gives_what_mmdets_class_gives(stem, call):
    (loss,) = losses_of(stem)
    with DefaultScope.overwrite_default_scope(scope_of(HERE[stem].parent.name)), warnings.catch_warnings():
        warnings.simplefilter('error')
        ours = MMDET_MODELS.build(read(loss))
    assert isinstance(ours, FusedLoss) and ours.ignored_arguments == {}
    own = {key: value for key, value in read(loss).items() if key != 'type'}
    assert_same(ours, getattr(stock, ours.replaces)(**own), *call())


def test_mmpretrains_heads_of_several_labels():
    """They hand over a one or a zero for each label, (N, L); the formula is that of mmdet's py_sigmoid_focal_loss."""
    scope = scope_of('mmpretrain')
    with DefaultScope.overwrite_default_scope(scope):
        ours = MODELS.children[scope].build(dict(type='mmdet.FusedFocalLoss', gamma=2.0, alpha=0.25))
    pred, target = torch.randn(6, 20), (torch.rand(6, 20) > 0.8).float()
    assert_same(ours, py_sigmoid_focal_loss, pred, target, weight=None, avg_factor=None)


def test_the_override_gives_mmdet3d_the_fused_class_under_mmdets_name():
    code = """
import runpy, sys
from mmengine.registry import MODELS, DefaultScope, Registry
import importlib
for module in runpy.run_path(sys.argv[1])['custom_imports']['imports']:
    importlib.import_module(module)
theirs = Registry(MODELS.name, parent=MODELS, scope='stand_in_for_mmdet3d', locations=[])
with DefaultScope.overwrite_default_scope('stand_in_for_mmdet3d'):
    print(type(theirs.build(dict(type='mmdet.FocalLoss', use_sigmoid=True))).__name__)
"""
    (path,) = (path for path in HERE.values() if path.stem.endswith('_override'))
    assert run(code.replace('sys.argv[1]', repr(str(path)))).splitlines()[-1] == 'FusedFocalLoss'


def test_every_config_is_on_the_page_beside_its_base():
    page = (FOLDER / 'hosts/README.md').read_text()
    for path in HERE.values():
        assert f']({path.parent.name}/{path.name})' in page
        base = runpy.run_path(str(path))['_base_']
        assert base.startswith(f'{path.parent.name}::') and path.stem.startswith(base.rpartition('/')[2][:-3])


def test_a_step_that_fails_is_a_row_with_its_error():
    missing = [path for path in HERE.values() if importlib.util.find_spec(path.parent.name) is None]
    if not missing:
        pytest.skip('every codebase is installed')
    found = hosts.row(Path(sys.executable), missing[0])
    assert not hosts.is_right(found) and found['failed'].startswith('ModuleNotFoundError')
    assert version_tables.hosts([found]).count(missing[0].stem) == 1


def test_a_codebase_takes_newer_versions_than_those_it_knew():
    text = "mmcv_minimum_version = '2.0.0rc4'\nmmcv_maximum_version = '2.1.0'\n"
    assert hosts.without_newest(text) == "mmcv_minimum_version = '2.0.0rc4'\nmmcv_maximum_version = '99.0.0'\n"
