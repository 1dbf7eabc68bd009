"""A training step of each config in configs/hosts on random data, with the stock loss and with ours.

python -m tools.maintain.host_step CONFIG ... prints a row of JSON for each; the codebases have to be installed, in an
environment that tools.maintain.hosts makes.
"""

import collections
import collections.abc
import importlib
import importlib.abc
import importlib.machinery
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import MagicMock

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch import nn

# What the codebases import at their start, and no training step here uses: data sets' kits and compilers of Python.
UNUSED = ('e2cnn', 'lyft_dataset_sdk', 'numba', 'nuscenes', 'open3d', 'plyfile', 'skimage', 'trimesh')


class Unused(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers every name of the modules in UNUSED that are not installed."""

    def find_spec(self, name, path=None, target=None):
        known = name.partition('.')[0] in UNUSED
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__spec__, module.__path__ = spec, []
        return module

    def exec_module(self, module) -> None:
        pass


def import_host(name: str) -> None:
    """Imports a codebase's models; mmrotate's take from collections what Python 3.10 moved to collections.abc."""
    if not any(isinstance(finder, Unused) for finder in sys.meta_path):
        sys.meta_path.append(Unused())
    if not hasattr(collections, 'Sequence'):
        collections.Sequence = collections.abc.Sequence
    importlib.import_module(f'{name}.models')
    init_default_scope(name)


def losses_of(node) -> Iterator[dict]:
    """Every loss of ours under a part of a config."""
    if isinstance(node, dict):
        if 'Fused' in str(node.get('type')):
            yield node
        node = list(node.values())
    for each in node if isinstance(node, (list, tuple)) else ():
        yield from losses_of(each)


def with_stock_losses(config: Config) -> Config:
    """The config with the codebase's own class in the place of each of ours."""
    stock = Config(config.to_dict())
    for loss in losses_of(stock.model):
        loss['type'] = {'FusedSegFocalLoss': 'FocalLoss'}.get(loss['type'], loss['type'].replace('Fused', ''))
    return stock


def built(config: Config) -> nn.Module:
    """The model from random weights, the same each time."""

    def strip(node) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            if key == 'pretrained' or (key == 'init_cfg' and 'Pretrained' in str(value)):
                node[key] = None
            strip(value)

    model = Config(config.to_dict()).model
    strip(model)
    torch.manual_seed(0)
    made = revert_sync_batchnorm(MODELS.build(model))  # SyncBN needs a GPU
    made.init_weights()
    return made.train()


def step(model: nn.Module, batch: Callable[[nn.Module], dict]) -> tuple[dict[str, float], torch.Tensor]:
    """The losses of a training step and the gradient of all weights."""
    MessageHub.get_current_instance().update_info('epoch', 0)  # PPYOLOE's assigner follows it
    torch.manual_seed(0)
    total, log = model.parse_losses(batch(model))
    total.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return {name: float(value) for name, value in log.items()}, torch.cat(gradients)


def boxes(images: int, side: int, count: int = 4) -> torch.Tensor:
    """(images, count, 4): corners of boxes a quarter to a half of an image wide and high."""
    corner, size = torch.rand(images, count, 2) * side / 2, (0.25 + torch.rand(images, count, 2) / 4) * side
    return torch.cat([corner, corner + size], dim=-1)


def of_mmyolo(model: nn.Module, images: int = 2, side: int = 320) -> dict:
    """As its fast collate hands over: one tensor of images, one row per box."""
    found = boxes(images, side)
    count = found.size(1)
    which, labels = torch.arange(images).repeat_interleave(count), torch.randint(0, 80, (images * count,))
    rows = torch.cat([torch.stack([which, labels], dim=1), found.reshape(-1, 4)], dim=1)
    metas = [dict(batch_input_shape=(side, side), img_shape=(side, side))] * images
    return model.loss(torch.rand(images, 3, side, side), dict(bboxes_labels=rows, img_metas=metas))


def of_mmrotate(model: nn.Module) -> dict:
    from mmrotate.testing import demo_mm_inputs

    data = demo_mm_inputs(2, (3, 256, 256), [3, 4], 15, use_box_type=True)
    return model(**model.data_preprocessor(data, training=True), mode='loss')


def of_mmdet3d(model: nn.Module) -> dict:
    """Points and boxes spread over the first half of the grid of voxels."""
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes

    voxels = model.data_preprocessor.voxel_layer
    low, high = torch.tensor(voxels.point_cloud_range).view(2, 3)
    nuscenes = hasattr(model, 'pts_bbox_head')  # its points have a time, its boxes a velocity
    points = torch.rand(4000, 5 if nuscenes else 4)
    points[:, :3] = low + (high - low) * points[:, :3]
    centres = low + (high - low) * (0.25 + torch.rand(6, 3) / 2)
    sizes = torch.tensor([[3.9, 1.6, 1.56]]).expand(6, 3)
    numbers = torch.cat([centres, sizes, torch.rand(6, 3 if nuscenes else 1)], dim=1)
    sample = Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes))
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(numbers, box_dim=numbers.size(1)), labels_3d=torch.randint(0, 3, (6,))
    )
    data = dict(inputs=dict(points=[points]), data_samples=[sample])
    return model(**model.data_preprocessor(data, training=True), mode='loss')


def of_mmseg(model: nn.Module, side: int = 128) -> dict:
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(2):
        labels = torch.randint(0, 150, (1, side, side))
        labels[:, :9] = 255
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=(side, side))))
    return model(torch.rand(2, 3, side, side), samples, mode='loss')


BATCHES = {'mmdet3d': of_mmdet3d, 'mmrotate': of_mmrotate, 'mmseg': of_mmseg, 'mmyolo': of_mmyolo}


def give_one_hot(model: nn.Module) -> None:
    """Hands mmseg's FocalLoss its labels as a one-hot and a weight: on a CPU its own one-hot of labels is an error."""
    from mmseg.models.losses import FocalLoss

    def rewritten(module, args, kwargs):
        pred, labels = args
        ignored = labels == kwargs.pop('ignore_index')
        one_hot = nn.functional.one_hot(labels.masked_fill(ignored, 0), pred.size(1)).movedim(-1, 1)
        return (pred, one_hot), {**kwargs, 'weight': (~ignored).float().flatten()}

    for module in model.modules():
        if isinstance(module, FocalLoss):
            module.register_forward_pre_hook(rewritten, with_kwargs=True)


def compared(path: Path) -> dict[str, str]:
    """Both steps of a config, and how far they are apart."""
    host = path.parent.name
    import_host(host)
    config = Config.fromfile(path, import_custom_modules=False)
    stock = built(with_stock_losses(config))
    if host == 'mmseg':
        give_one_hot(stock)
    theirs, their_gradient = step(stock, BATCHES[host])
    for module in config.custom_imports.imports:
        importlib.import_module(module)
    model = built(config)
    ours, our_gradient = step(model, BATCHES[host])
    fused = {type(module).__name__ for module in model.modules() if type(module).__module__.startswith('focal_plugin')}
    apart = max(abs(ours[name] - theirs[name]) / max(abs(theirs[name]), 1e-30) for name in theirs)
    return {
        'host': host,
        'version': importlib.import_module(host).__version__,
        'config': path.stem,
        'fused': ', '.join(sorted(fused)),
        'loss': f'{ours["loss"]:.6g}',
        'losses apart': f'{apart:.1e}',
        'gradients apart': f'{float((our_gradient - their_gradient).norm() / their_gradient.norm()):.1e}',
    }


if __name__ == '__main__':
    for argument in sys.argv[1:]:
        print(json.dumps(compared(Path(argument))), flush=True)
