"""Trains the demo's RetinaNet for a few iterations and keeps what parity is judged by.

    python -m tests.heads.training_run MODE OUT

MODE is 'mmdet' (FocalLoss), 'fused' (FusedFocalLoss), or 'override' (FocalLoss, with focal_plugin.override imported).
"""

import importlib
import sys

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner, set_random_seed

import focal_plugin

ITERATIONS = 6


def main(mode: str, out: str) -> None:
    register_all_modules()
    config = Config.fromfile(f'{focal_plugin.config_dir()}/retinanet/retinanet_r18_fpn_boards_fused-focal.py')
    config.model.bbox_head.loss_cls.type = 'FusedFocalLoss' if mode == 'fused' else 'FocalLoss'
    # The L1 loss would turn a rounding at 0 into a jump of its gradient.
    config.model.bbox_head.loss_bbox = dict(type='SmoothL1Loss', beta=0.1)
    if mode == 'override':
        importlib.import_module('focal_plugin.override')
    set_random_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    loader = config.train_dataloader
    loader.batch_size = 2
    loader = Runner.build_dataloader(loader, seed=0)
    # Plain SGD with clipping: Adam's normalisation would blow rounding up.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses, grads, batches = [], None, iter(loader)
    for _ in range(ITERATIONS):
        data = model.data_preprocessor(next(batches), training=True)
        total, parts = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        total.backward()
        if grads is None:
            grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append({name: float(value) for name, value in parts.items()})
    torch.save(dict(loss=type(model.bbox_head.loss_cls).__name__, losses=losses, grads=grads), out)


if __name__ == '__main__':
    main(*sys.argv[1:])
