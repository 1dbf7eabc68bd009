"""Every config that ships: it parses, it swaps only what its name says, and its model takes a training step."""

import json
import random
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, HOOKS, MODELS, OPTIM_WRAPPERS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import init_default_scope

from focal_plugin import losses
from focal_plugin.hooks import findings
from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import SPECS
from tests.configs import (
    BOARDS,
    CONFIGS,
    FOLDER,
    INSTANCE,
    OVERRIDE,
    ROOT,
    SWAPPED,
    WITH_BASE,
    build_to_train,
    fused,
    mmdet_base,
    name,
    noise,
    num_classes,
    parsed,
    read,
    take_stock,
    training_step,
    with_mmdets_losses,
)
from tests.variants import VARIANTS

REPLACED = {kind.replaces: kind for kind in vars(losses).values() if getattr(kind, 'replaces', None)}


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Steps this small gain nothing from a second thread, and lose a lot where another process takes its core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain(value):
    """A config as plain containers, without the `_scope_` that mmengine writes into what a foreign base brings."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != '_scope_'}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def complete(config: Config) -> Config:
    """Gives what the user of a config brings, such as the counts of the class-balanced loss; here any."""
    required = {variant.kind: variant.required for variant in VARIANTS.values()}
    for _, loss in fused(config.model, ('model',)):
        for argument, value in required.get(loss.type, lambda _: {})(num_classes(config)).items():
            loss.setdefault(argument, value)
    return config


@pytest.mark.parametrize('path', SWAPPED, ids=name)
def test_losses_take_what_they_are_given(path):
    config = complete(read(path))
    init_default_scope('mmdet')
    found = list(fused(config.model, ('model',)))
    assert found
    if path.parent.name in SPECS:
        suffix = path.stem.rsplit('_', 1)[1].removesuffix('-custom')
        assert suffix == 'fused-' + path.parent.name.replace('_', '-')
    for keys, loss in found:
        assert loss.use_sigmoid is MODELS.get(loss.type).use_sigmoid, keys
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            built = MODELS.build(loss)
        assert built.ignored_arguments == {}
    for kind in REPLACED:
        assert f"type='{kind}'" not in str(plain(config.model.to_dict())), f'{kind} is left'


@pytest.mark.parametrize('path', SWAPPED, ids=name)
def test_head_fits_its_loss(path):
    config = complete(read(path))
    init_default_scope('mmdet')
    config.model.pop('data_preprocessor', None)  # BoxInst's needs a package that no loss does
    config.model.backbone = dict(type='ResNet', depth=18)  # any: Swin's reads numbers, which meta tensors lack
    with torch.device('meta'):  # shapes only: no weights are drawn
        model = MODELS.build(config.model)
    assert any(isinstance(module, FusedLoss) for module in model.modules())
    assert list(findings(model, num_classes(config))) == []


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_plugin_and_checks_come_with_it(path):
    config = parsed(path)
    assert config.custom_imports.imports == ['focal_plugin.override' if path == OVERRIDE else 'focal_plugin']
    hooks = [hook for hook in config.custom_hooks if hook['type'] == 'FusedLossCheckHook']
    assert len(hooks) == 1
    assert HOOKS.build(hooks[0]) is not None


def match_costs(config: dict) -> list[dict]:
    return (config['model'].get('train_cfg') or {}).get('assigner', {}).get('match_costs', [])


@pytest.mark.parametrize('path', WITH_BASE, ids=name)
def test_only_the_loss_differs_from_mmdet(path):
    ours, base = plain(read(path).to_dict()), plain(mmdet_base(path).to_dict())
    for keys, _ in fused(ours['model'], ('model',)):
        here, there = ours, base
        for key in keys[:-1]:
            here, there = here[key], there[key]
        here[keys[-1]] = there[keys[-1]]
    if path.parent.name in ('zero_copy', 'cut'):
        take_stock(ours['model']['bbox_head'])
    elif path.parent.name == 'query_selection':
        take_stock(ours['model'])
    for i, cost in enumerate(match_costs(ours)):
        if cost['type'].startswith('Fused'):
            match_costs(ours)[i] = match_costs(base)[i]
    del ours['custom_imports']
    # A loss that is written once for several places leaves its name in the config, where nothing reads it.
    ours = {key: value for key, value in ours.items() if key not in ('loss', 'loss_cls', 'loss_mask', 'match_costs')}
    ours['custom_hooks'] = [hook for hook in ours['custom_hooks'] if hook['type'] != 'FusedLossCheckHook']
    base.setdefault('custom_hooks', [])
    if '_amp-' in path.stem:
        assert ours['optim_wrapper'].pop('dtype') == ('bfloat16' if 'bf16' in path.stem else 'float16')
        for config in (ours, base):
            for key in ('type', 'loss_scale'):
                config['optim_wrapper'].pop(key, None)
    assert ours == base


def photos(config: Config) -> dict:
    """A batch of the boards, through the config's own pipeline."""
    random.seed(0)
    np.random.seed(0)
    init_default_scope('mmdet')
    dataset = DATASETS.build(dict(config.train_dataloader.dataset, data_root=str(ROOT / config.data_root)))
    return pseudo_collate([dataset[index] for index in range(0, len(dataset), len(dataset) // 4)])


def epochs(path: Path) -> tuple[int, ...]:
    """Epochs that differ in their losses: TOOD changes over to the second one at its fourth."""
    return (0, 4) if path.stem.startswith('tood') else (0,)


def has_mmdets_losses(path: Path) -> bool:
    ours = {kind.__name__ for kind in REPLACED.values()}
    return all(loss.type in ours for _, loss in fused(parsed(path).model, ('model',)))


@pytest.mark.sampled(4)
@pytest.mark.parametrize('path', BOARDS, ids=name)
def test_boards_take_a_training_step(path):
    batch, ours = photos(read(path)), build_to_train(complete(read(path)))
    theirs = build_to_train(with_mmdets_losses(read(path))) if has_mmdets_losses(path) else None
    for epoch in epochs(path):
        log = training_step(ours, batch, epoch)
        if theirs is not None:
            expected = training_step(theirs, batch, epoch)
            assert log == {key: pytest.approx(value, rel=1e-4, abs=1e-6) for key, value in expected.items()}


@pytest.mark.slow
@pytest.mark.parametrize('path', [path for path in SWAPPED if path not in BOARDS + INSTANCE], ids=name)
def test_models_take_a_training_step(path):
    config = complete(read(path))
    dtype = config.optim_wrapper.get('dtype')
    model, batch = build_to_train(config), noise(config)
    for epoch in epochs(path):
        training_step(model, batch, epoch, dtype and getattr(torch, dtype))


SERVED_BY_OVERRIDE = """
import torch
torch.set_num_threads(1)
import focal_plugin.override
from tests.configs import OVERRIDE, build_to_train, noise, read, training_step
config = read(OVERRIDE)
model = build_to_train(config)
training_step(model, noise(config))
print(config.model.bbox_head.loss_cls.type, type(model.bbox_head.loss_cls).__name__, model.bbox_head.use_sigmoid_cls)
"""


@pytest.mark.slow
def test_override_serves_an_untouched_model():
    command = [sys.executable, '-c', SERVED_BY_OVERRIDE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-3:] == ['FocalLoss', 'FusedFocalLoss', 'True'], done.stderr


@pytest.mark.parametrize(
    ('stem', 'dtype', 'scaled'), [('amp-1x', torch.float16, True), ('amp-bf16-1x', torch.bfloat16, False)]
)
def test_mixed_precision(stem, dtype, scaled, monkeypatch):
    # AmpOptimWrapper refuses to be built without a GPU, though nothing in building it needs one.
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))
    config = read(FOLDER / f'retinanet/retinanet_r50_fpn_{stem}_coco_fused-focal.py')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(dict(config.optim_wrapper, optimizer=optimizer))
    assert wrapper.cast_dtype is dtype
    loss = torch.ones(())
    assert (wrapper.loss_scaler.scale(loss) > loss) == scaled


@pytest.mark.parametrize('path', [path for path in CONFIGS if 'lvis' in path.stem], ids=name)
def test_lvis_has_its_classes_and_no_masks(path):
    config = read(path)
    assert num_classes(config) == 1203 == len(DATASETS.get('LVISV1Dataset').METAINFO['classes'])
    assert config.model.bbox_head.loss_cls.get('num_classes', 1203) == 1203
    assert config.val_evaluator.metric == 'bbox'
    assert 'with_mask' not in config.pretty_text


def test_boards_config_fits_its_data():
    config = read(FOLDER / 'retinanet/retinanet_r18_fpn_boards_fused-focal.py')
    for loader, photos, boxes in ((config.train_dataloader, 120, 142), (config.val_dataloader, 29, 35)):
        dataset = dict(loader.dataset, data_root=str(ROOT / config.data_root), pipeline=[])
        init_default_scope('mmdet')
        built = DATASETS.build(dataset)
        instances = [instance for index in range(len(built)) for instance in built.get_data_info(index)['instances']]
        assert (len(built), len(instances)) == (photos, boxes)
        assert {instance['bbox_label'] for instance in instances} == set(range(config.model.bbox_head.num_classes))


def test_class_balanced_counts_are_those_of_the_annotations():
    folder = FOLDER / 'class_balanced_focal'
    count = re.search(r'python -c "(.*?)" data/coco', (folder / 'README.md').read_text(), re.DOTALL)[1]
    annotations = ROOT / 'tests/data/boards/train.json'
    done = subprocess.run([sys.executable, '-c', count, annotations], capture_output=True, text=True, check=True)
    config = read(folder / 'retinanet_r18_fpn_boards_fused-class-balanced-focal.py')
    assert config.model.bbox_head.loss_cls.samples_per_class == json.loads(done.stdout)


@pytest.mark.parametrize('base', ['1x_coco', '1x_lvis-v1'])
def test_class_balanced_without_counts_says_so(base):
    config = read(FOLDER / f'class_balanced_focal/retinanet_r50_fpn_{base}_fused-class-balanced-focal.py')
    with pytest.raises(TypeError, match='samples_per_class'):
        MODELS.build(config.model.bbox_head.loss_cls)
