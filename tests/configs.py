"""The configs that ship, read, and their models as training builds them."""

import copy
import gc
import inspect
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import mmdet
import torch
from mmdet.models import losses as mmdet_losses
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope

from focal_plugin.losses.base import FusedLoss

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'configs'
CONFIGS = sorted(path for path in FOLDER.glob('*/*.py') if path.parent.name != '_base_')
OVERRIDE = FOLDER / 'retinanet/retinanet_r50_fpn_1x_coco_override.py'
SWAPPED = [path for path in CONFIGS if path != OVERRIDE]
BOARDS = [path for path in SWAPPED if '_boards_' in path.stem]
# mmdet has none of the same name for LVIS and the small photos.
WITH_BASE = [path for path in CONFIGS if not re.search('_(lvis-v1|boards|coco-mini)_', path.stem)]


# What learns masks takes its training steps on photos with masks: test_instance_configs.py.
INSTANCE = [
    path
    for path in SWAPPED
    if path.parent.name
    in {
        'boxinst',
        'cascade_rcnn',
        'condinst',
        'mask2former',
        'mask_rcnn',
        'maskformer',
        'point_rend',
        'queryinst',
        'rtmdet',
        'solo',
        'solov2',
    }
    or path.stem.startswith('rtmdet-ins')
]


def name(path: Path) -> str:
    return path.stem


@cache
def parsed(path: Path) -> Config:
    # custom_imports stay unread: an imported focal_plugin.override would change the registry for every later test.
    return Config.fromfile(path, import_custom_modules=False)


def read(path: Path) -> Config:
    """A config of which a test may change its copy."""
    return copy.deepcopy(parsed(path))


def mmdet_base(path: Path) -> Config:
    """mmdet's config of the same name, without the suffix that names the loss, of which a test may change its copy."""
    stem = re.sub(r'_(fused-[a-z-]+|override)$', '', path.stem).replace('amp-bf16-', '')
    return read(next((Path(mmdet.__file__).parent / '.mim/configs').glob(f'*/{stem}.py')))


def fused(node, keys=()) -> Iterator[tuple[tuple, dict]]:
    """Every fused loss under a part of a config, with the keys that lead there."""
    if isinstance(node, dict):
        if str(node.get('type')).startswith('Fused') and 'loss' in str(keys[-1]):
            yield keys, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from fused(value, (*keys, key))


def take_stock(part: dict) -> None:
    """Takes a fused part of a model back to mmdet's own."""
    stock = part['type'].removeprefix('Fused')
    assert issubclass(MODELS.get(part['type']), MODELS.get(stock))
    part['type'] = stock
    part.pop('cut', None)


def with_mmdets_losses(config: Config) -> Config:
    """The config with mmdet's own classes, given what ours are given."""
    if class_head(config).type.startswith('Fused'):
        take_stock(config.model.bbox_head)
    for _, loss in fused(config.model, ('model',)):
        loss.type = getattr(mmdet_losses, MODELS.get(loss.type).replaces)
        for key in loss.keys() - inspect.signature(loss.type).parameters.keys() - {'type'}:
            del loss[key]
    return config


def class_head(config: Config) -> dict:
    """The head that tells classes; of several stages the first."""
    parts = {**config.model, **config.model.get('roi_head', {})}
    head = next(parts[name] for name in ('bbox_head', 'mask_head', 'panoptic_head') if name in parts)
    return head[0] if isinstance(head, list) else head


def num_classes(config: Config) -> int:
    head = class_head(config)
    return head.num_classes if 'num_classes' in head else head.num_things_classes + head.num_stuff_classes


def build_to_train(config: Config) -> torch.nn.Module:
    """The config's model as training finds it, but from random weights."""
    gc.collect()  # the models before, each a cycle of references, and some gigabytes with its gradients
    init_default_scope('mmdet')
    torch.manual_seed(0)
    for part in (config.model, config.model.backbone):
        part.init_cfg = None
    model = revert_sync_batchnorm(MODELS.build(config.model))  # SyncBN needs a GPU
    model.init_weights()
    return model.train()


def noise(config: Config) -> dict:
    """A batch of noise. DINO chooses 900 of its places, which takes 256 pixels; DDOD deforms a level of stride 128."""
    side = {'DINO': 256, 'DDOD': 384}.get(config.model.type.removeprefix('Fused'), 128)
    return demo_mm_inputs(2, image_shapes=(3, side, side), num_items=[2, 3], num_classes=num_classes(config))


def training_step(
    model: torch.nn.Module, batch: dict, epoch: int = 0, dtype: torch.dtype | None = None
) -> dict[str, float]:
    """Forward, losses and backward: everything finite, and fused losses handed what they are made for."""
    MessageHub.get_current_instance().update_info('epoch', epoch)
    seen: dict[FusedLoss, list] = {module: [] for module in model.modules() if isinstance(module, FusedLoss)}
    hooks = [module.register_forward_pre_hook(partial(_record, seen)) for module in seen]
    torch.manual_seed(0)  # denoising queries are drawn
    with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None):
        data = model.data_preprocessor(copy.deepcopy(batch), training=True)
        total, log = model.parse_losses(model(**data, mode='loss'))
    model.zero_grad()
    total.backward()
    for hook in hooks:
        hook.remove()
    assert all(value.isfinite().all() for value in log.values()), log
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert [key for key, gradient in gradients.items() if not gradient.isfinite().all()] == []
    for loss, calls in seen.items():
        # A head that takes a loss of qualities for any other would hand it labels, of quality 1.
        assert not loss.spec.scored or all(isinstance(t, tuple) or t.is_floating_point() for _, t in calls)
        handed = [level for pred, _ in calls for level in getattr(pred, 'maps', [pred])]  # by a zero-copy head, maps
        assert not loss.takes_probabilities or all(0 <= p.min() and p.max() <= 1 for p in handed)
        assert all(p.requires_grad for p, _ in calls)
    assert not seen or any(seen.values())
    return {key: float(value) for key, value in log.items()}


def _record(seen, module, inputs) -> None:
    seen[module].append(inputs[:2])
