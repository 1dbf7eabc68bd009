"""Heads that never hold their class logits, and what they are given."""

import math

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch.utils._pytree import tree_leaves

from tests.heads.stock import BOXES, CLASSES, FIVE, HEADS, SIZES, built

MIB = 2**20
PLACES = 2 * math.prod(SIZES[0])  # of the largest level
SIX = (*FIVE, 'condinst')
ALL = {
    **{name: head for name, head in HEADS.items() if name.startswith(FIVE)},
    'condinst': ('CondInstBboxHead', HEADS['fcos'][1] | dict(num_params=8)),
}
# mmdet spells it so.
NORMED = dict(cls_predictor_cfg=dict(type='NormedConv2d', tempearture=50, bias=True))
CHUNKS = {'all anchors': 64, 'two anchors': 5 * CLASSES * PLACES * 4 / MIB, 'three classes': 7 * PLACES * 4 / MIB}
"""MiB of a chunk."""


def head_of(name: str, arguments: dict, **more):
    head = built(name, arguments | more).train()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in head.parameters():  # mmdet's own are so small that logits differ little from their bias
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return head


def features(dtype: torch.dtype = torch.float32, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 32, *size, generator=generator).to(dtype).requires_grad_() for size in SIZES]


def samples(head, boxes=BOXES) -> list[DetDataSample]:
    labels = ([0, head.num_classes - 1], [head.num_classes // 2])
    found = []
    for of, those in zip(boxes, labels, strict=True):
        sample = DetDataSample(metainfo=dict(img_shape=(128, 160), pad_shape=(128, 160), scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(of).reshape(-1, 4), labels=torch.tensor(those[: len(of)], dtype=torch.int64)
        )
        found.append(sample)
    return found


def loss_and_gradients(head, maps: list[torch.Tensor], boxes=BOXES) -> tuple[dict, dict[str, torch.Tensor]]:
    """(losses by name, gradients of parameters and features by name)."""
    losses = {name: sum(tree_leaves(value)) for name, value in head.loss(maps, samples(head, boxes)).items()}
    sum(losses.values()).backward()
    grads = {name: p.grad for name, p in head.named_parameters() if p.grad is not None}
    return losses, grads | {f'features {i}': x.grad for i, x in enumerate(maps) if x.grad is not None}
