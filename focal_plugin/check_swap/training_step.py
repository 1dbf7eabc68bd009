"""One training step of any detector on synthetic photos: its losses, its gradients, and how its heads call their losses."""

from __future__ import annotations
import copy
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.structures import InstanceData, PixelData
from torch import nn

from focal_plugin.check_swap import sites
from focal_plugin.rows import Logits

# Three cells at stride 128, where deformable convolutions need them.
SIZE = 384
# x1, y1, x2, y2 of two photos, in sixteenths: large, small, overlapping.
BOXES = [[[1, 1, 5, 6], [4, 3, 15, 14], [1, 8, 3, 10]], [[2, 1, 14, 15], [4, 5, 6, 7]]]


@dataclass
class Step:
    """One training step: losses and gradient norms by name, what was handed to the losses, and its time."""

    losses: dict[str, float]
    norms: dict[str, float]
    calls: dict[str, str]
    milliseconds: float


def build(config: dict, scope: str = 'mmdet') -> nn.Module:
    """The model, initialised from seed 0, without pretrained weights or augmentation of whole batches."""
    config = copy.deepcopy(config)
    strip(config)
    init_default_scope(scope)
    set_random_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    # A distilling detector's train() returns nothing.
    model.train()
    return model


def strip(config: Any) -> None:
    for _, part in sites.parts(config):
        for key, value in part.items():
            if key in ('pretrained', 'batch_augments', 'teacher_ckpt'):
                part[key] = None
            elif key == 'init_cfg':
                part[key] = untrained(value)


def untrained(init: Any) -> Any:
    """An init_cfg without weights from a file; None, the module's own default, where nothing is left."""
    each = init if isinstance(init, list) else [init]
    kept = [one for one in each if one and sites.type_name(one.get('type')) not in ('Pretrained', 'PretrainedInit')]
    return init if kept == each else kept or None


def step(model: BaseModel, masks: bool) -> Step:
    """One step from seed 0; the time is that of a second, equal one."""
    calls: dict[str, list[str]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs, path=path: calls.setdefault(path, []).append(call(args, kwargs)), with_kwargs=True
        )
        for path, module in model.named_modules()
        if path.rpartition('.')[2] in sites.KEYS
    ]
    losses = backward(model, masks)
    for handle in handles:
        handle.remove()
    norms = {'all': norm(model)}
    norms.update({head: norm(model.get_submodule(head)) for head in (path.rpartition('.')[0] for path in calls)})
    model.zero_grad()
    start = time.perf_counter()
    backward(model, masks)
    milliseconds = 1e3 * (time.perf_counter() - start)
    counted = {path: f'{len(texts)} x, first {texts[0]}' for path, texts in calls.items()}
    return Step(losses, norms, counted, milliseconds)


def backward(model: BaseModel, masks: bool) -> dict[str, float]:
    set_random_seed(0)
    # TOOD's head uses loss_cls only after its first epochs.
    epoch = max((getattr(module, 'initial_epoch', 0) for module in model.modules()), default=0)
    MessageHub.get_current_instance().update_info_dict(dict(epoch=epoch, iter=0))
    data = model.data_preprocessor(inputs(model, masks), training=True)
    total, parts = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    return {name: float(value) for name, value in parts.items()}


def norm(module: nn.Module) -> float:
    squares = [p.grad.double().square().sum() for p in module.parameters() if p.grad is not None]
    return float(sum(squares)) ** 0.5


def inputs(model: nn.Module, masks: bool) -> dict:
    """Two photos of noise with boxes of the first and the last class, a semantic map and, if wanted, masks."""
    counts = [getattr(module, 'num_classes', None) for module in model.modules()]
    classes = max((count for count in counts if isinstance(count, int)), default=1)
    size = (SIZE, SIZE)
    samples: list[DetDataSample] = []
    metainfo = dict(img_path='', img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), border=(0,) * 4, flip=False)
    for sixteenths in BOXES:
        boxes = torch.tensor(sixteenths) * SIZE / 16
        labels = torch.tensor([0, classes - 1, 0])[: len(boxes)]
        instances = InstanceData(bboxes=HorizontalBoxes(boxes), labels=labels)
        if masks:
            instances.masks = BitmapMasks(rectangles(boxes), SIZE, SIZE)
        sample = DetDataSample(
            metainfo=dict(metainfo, img_id=len(samples)),
            gt_instances=instances,
            ignored_instances=InstanceData(bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=labels[:0]),
            gt_sem_seg=PixelData(sem_seg=torch.zeros(1, *size, dtype=torch.long)),
        )
        samples.append(sample)
    photos = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in samples]
    return dict(inputs=photos, data_samples=samples)


def rectangles(boxes: torch.Tensor) -> np.ndarray:
    masks = np.zeros((len(boxes), SIZE, SIZE), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    return masks


def call(args: tuple, kwargs: dict) -> str:
    """How a loss is called: shapes of tensors, a tuple in brackets."""
    return ', '.join([*map(shown, args), *(f'{name}={shown(value)}' for name, value in kwargs.items())])


def shown(value: Any) -> str:
    if isinstance(value, (torch.Tensor, Logits)):
        return f'{str(value.dtype).replace("torch.", "")}{tuple(value.shape)}'
    return f'({", ".join(map(shown, value))})' if isinstance(value, tuple) else repr(value)
