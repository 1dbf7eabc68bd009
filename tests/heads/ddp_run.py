"""One of two data-parallel processes, which keeps its gradients.

python -m tests.heads.ddp_run RANK RENDEZVOUS OUT NAME PHOTO [find_unused_parameters] [held] [stock]

held: the class logits, of a head that else cuts them.
stock: mmdet's head, instead of ours.
"""

import sys

import torch
from mmdet.utils import register_all_modules
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import focal_plugin  # noqa: F401  registers
from tests.heads.detectors import FUSED, batch, fused, gradients, losses


def main(rank: str, rendezvous: str, out: str, name: str, photo: str, *options: str) -> None:
    torch.set_num_threads(1)
    register_all_modules()
    distributed.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=int(rank), world_size=2)
    try:
        changes: dict[str, object] = {'cut': False} if 'held' in options else {}
        if 'stock' in options:
            changes['type'] = FUSED[name][1]['bbox_head']['type'].removeprefix('Fused')
        detector = fused(name, bbox_head=changes)
        model = DistributedDataParallel(detector, find_unused_parameters='find_unused_parameters' in options)
        total, _ = losses(model, batch(int(photo)))
        total.backward()
        torch.save(gradients(model.module), out)
    finally:
        distributed.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
