"""Every config that ships: it parses, it swaps only what its name says, and its model builds with the fused loss."""

import copy
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import yaml
from mmdet.registry import DATASETS, HOOKS, MODELS, OPTIM_WRAPPERS
from mmengine.config import Config
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import init_default_scope

import focal_plugin  # noqa: F401 (registers the loss and the hook)

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_')
SWAPPED = [path for path in CONFIGS if not path.stem.endswith('_override')]


def name(path: Path) -> str:
    return path.stem


@cache
def read(path: Path) -> Config:
    # custom_imports stay unread: an imported focal_plugin.override would change the registry for every later test.
    return Config.fromfile(path, import_custom_modules=False)


def mmdet_base(path: Path) -> Config:
    """mmdet's config of the same name, without the suffix that names the loss."""
    stem = path.stem.removesuffix('_fused-focal').removesuffix('_override').replace('amp-bf16-', '')
    return read(Path(Config._get_cfg_path(f'mmdet::{path.parent.name}/{stem}.py', '')[0]))


def plain(value):
    """A config as plain containers, without the `_scope_` that mmengine writes into what a foreign base brings."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != '_scope_'}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def build_model(config: Config):
    init_default_scope('mmdet')
    with torch.device('meta'):  # shapes only: no weights are drawn
        return MODELS.build(copy.deepcopy(config.model))


def test_metafiles_and_readmes_list_every_config():
    assert CONFIGS
    for folder in {path.parent for path in CONFIGS}:
        models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
        files = sorted(path.relative_to(ROOT).as_posix() for path in CONFIGS if path.parent == folder)
        assert sorted(model['Config'] for model in models) == files
        assert all(model['Config'].endswith(f'/{model["Name"]}.py') for model in models)
        readme = (folder / 'README.md').read_text()
        assert [path for path in CONFIGS if path.parent == folder and f']({path.name})' not in readme] == []


@pytest.mark.parametrize('path', SWAPPED, ids=name)
def test_model_has_the_fused_loss(path):
    config = read(path)
    loss = config.model.bbox_head.loss_cls
    assert loss == dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
    head = build_model(config).bbox_head
    assert type(head.loss_cls) is MODELS.get('FusedFocalLoss')
    assert head.use_sigmoid_cls
    anchors = head.num_base_priors
    assert head.retina_cls.weight.shape[0] == anchors * config.model.bbox_head.num_classes


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_checks_run_at_the_start(path):
    hooks = [hook for hook in read(path).custom_hooks if hook['type'] == 'FusedLossCheckHook']
    assert len(hooks) == 1
    assert HOOKS.build(hooks[0]) is not None


OVERRIDE = """
import sys, torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
config = Config.fromfile(sys.argv[1])
init_default_scope('mmdet')
with torch.device('meta'):
    head = MODELS.build(config.model).bbox_head
print(config.model.bbox_head.loss_cls.type, type(head.loss_cls).__name__, head.use_sigmoid_cls)
"""


def test_override_serves_an_untouched_model():
    path = ROOT / 'configs/retinanet/retinanet_r50_fpn_1x_coco_override.py'
    assert read(path).custom_imports.imports == ['focal_plugin.override']
    done = subprocess.run([sys.executable, '-c', OVERRIDE, path], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ['FocalLoss', 'FusedFocalLoss', 'True'], done.stderr


@pytest.mark.parametrize('path', [path for path in CONFIGS if 'coco' in path.stem], ids=name)
def test_only_the_loss_differs_from_mmdet(path):
    ours, base = plain(read(path).to_dict()), plain(mmdet_base(path).to_dict())
    ours['model']['bbox_head']['loss_cls']['type'] = 'FocalLoss'
    for key in ('custom_imports', 'custom_hooks'):
        del ours[key]
    if 'amp' in path.stem:
        assert ours['optim_wrapper'].pop('dtype') == ('bfloat16' if 'bf16' in path.stem else 'float16')
        for config in (ours, base):
            for key in ('type', 'loss_scale'):
                config['optim_wrapper'].pop(key, None)
    assert ours == base


@pytest.mark.parametrize(
    ('stem', 'dtype', 'scaled'), [('amp-1x', torch.float16, True), ('amp-bf16-1x', torch.bfloat16, False)]
)
def test_mixed_precision(stem, dtype, scaled, monkeypatch):
    # AmpOptimWrapper refuses to be built without a GPU, though nothing in building it needs one.
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))
    config = read(ROOT / f'configs/retinanet/retinanet_r50_fpn_{stem}_coco_fused-focal.py')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(dict(config.optim_wrapper, optimizer=optimizer))
    assert wrapper.cast_dtype is dtype
    loss = torch.ones(())
    assert (wrapper.loss_scaler.scale(loss) > loss) == scaled


def test_lvis_has_its_classes_and_no_masks():
    config = read(ROOT / 'configs/retinanet/retinanet_r50_fpn_1x_lvis-v1_fused-focal.py')
    assert config.model.bbox_head.num_classes == 1203 == len(DATASETS.get('LVISV1Dataset').METAINFO['classes'])
    assert config.val_evaluator.metric == 'bbox'
    assert 'with_mask' not in config.pretty_text


def test_boards_config_fits_its_data():
    config = read(ROOT / 'configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py')
    for loader, photos, boxes in ((config.train_dataloader, 120, 142), (config.val_dataloader, 29, 35)):
        dataset = dict(loader.dataset, data_root=str(ROOT / config.data_root), pipeline=[])
        init_default_scope('mmdet')
        built = DATASETS.build(dataset)
        instances = [instance for index in range(len(built)) for instance in built.get_data_info(index)['instances']]
        assert (len(built), len(instances)) == (photos, boxes)
        assert {instance['bbox_label'] for instance in instances} == set(range(config.model.bbox_head.num_classes))
