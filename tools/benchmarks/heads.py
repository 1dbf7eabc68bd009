"""Times the losses as heads call them, on the maps and masks that heads have; rows go into tools/results/maps.csv.

- The losses of the heads of RetinaNet, ATSS, FCOS, GFL and VFNet, from configs/zero_copy: batch 2, 512 x 512 images, 80
  classes, five levels of (2, A * 80, H, W) logits, A = 9 for RetinaNet and 1 for the others. Each head runs its own
  loss_by_feat, the stock one with copies of its logits. Anchors and targets are found once, before, the losses of boxes are
  left out, and the boxes lie so that their rows are no copies: what remains is what a head does for its class loss.
- MaskFormer's mask loss: 20 masks of 128 x 128, (M, 1) logits and labels 0 for the mask, 1 for the rest.
- Mask R-CNN's mask loss: 256 instances, (256, 80, 28, 28) logits of which the label's channel counts; the plain way picks
  it by indexing.

Each contender is timed, forward and backward, only where its value and gradient agree with mmdet's loss in float64. On a
GPU runs follow one another without waiting, each on the next copies of the logits, four times the cache together.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from focal_plugin.losses import FusedFocalLoss, FusedMaskFocalLoss
from tools.benchmarks.cases import sets
from tools.benchmarks.contenders import CLONE, CannotRunError, provide_mmcv_op
from tools.benchmarks.losses import NOISE, count
from tools.benchmarks.measure import Noise
from tools.benchmarks.results import MAPS, ROOT, provenance, update
from tools.benchmarks.turns import measure, say
from tools.training import needs_mmdet  # noqa: F401

KEY = ('machine', 'device', 'work', 'contender')
TOLERANCE = 1e-5  # relative, to the value and to the largest gradient
TURN = 300  # milliseconds of a contender in one round
CONFIGS = ROOT / 'configs/zero_copy'
HEADS = {
    'RetinaNet': 'retinanet_r50_fpn_1x_coco',
    'ATSS': 'atss_r50_fpn_1x_coco',
    'FCOS': 'fcos_r50-caffe_fpn_gn-head_1x_coco',
    'GFL': 'gfl_r50_fpn_1x_coco',
    'VFNet': 'vfnet_r50_fpn_1x_coco',
}
SIDE, SIZES = 512, (64, 32, 16, 8, 4)
Step = Callable[[list[Tensor]], Tensor]


def dense_head(config: str, device: str) -> tuple[list[Tensor], dict[str, Step]]:
    """(the logits of all levels, the contenders): the fused head, and the stock one with our loss and with mmdet's."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = Config.fromfile(CONFIGS / f'{config}_fused-head.py', import_custom_modules=False).model
    small = dict(in_channels=32, feat_channels=32, stacked_convs=1)  # what comes before the logits is not measured
    arguments = {**model.bbox_head, **small, 'train_cfg': model.get('train_cfg')}
    fused, loss = arguments['type'], arguments['loss_cls']['type']
    stock, theirs = fused.removeprefix('Fused'), loss.removeprefix('Fused')

    def built(kind: str, loss: str) -> torch.nn.Module:
        return MODELS.build({**arguments, 'type': kind, 'loss_cls': {**arguments['loss_cls'], 'type': loss}})

    heads = {
        fused: built(fused, loss),
        f'{stock}, {loss}': built(stock, loss),
        f'{stock}, mmdet {theirs}': built(stock, theirs),
    }
    with torch.no_grad():  # on the CPU, where VFNet's deformable convolution always is
        logits, *others = heads[fused]([torch.randn(2, 32, size, size) for size in SIZES])
    logits = [torch.randn_like(level).sub_(4).to(device) for level in logits]
    others = [[level.to(device, memory_format=torch.channels_last) for level in kind] for kind in others]
    objects = [instances(device) for _ in range(2)]
    return logits, {name: class_loss(head.to(device), logits, others, objects) for name, head in heads.items()}


def instances(device: str) -> InstanceData:
    """Eight objects, from small ones to half of the image."""
    sizes = SIDE * (1 + 7 * torch.rand(8, 2)) / 16
    corners = torch.rand(8, 2) * (SIDE - sizes)
    boxes = torch.cat([corners, corners + sizes], dim=1)
    return InstanceData(bboxes=boxes.to(device), labels=torch.randint(0, 80, (8,), device=device))


class Nothing(torch.nn.Module):
    """In the place of a loss of boxes."""

    def forward(self, pred: Tensor, *args, **kwargs) -> Tensor:
        return pred.new_zeros(())


def class_loss(
    head: torch.nn.Module, logits: list[Tensor], others: list[list[Tensor]], objects: list[InstanceData]
) -> Step:
    """The sum of a head's class losses, with the anchors and the targets that it finds here."""
    metas = [dict(img_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0))] * 2
    for name, _ in list(head.named_children()):
        if name.startswith('loss_') and name != 'loss_cls':
            setattr(head, name, Nothing())

    dtype = torch.float32

    def remembered(find: Callable) -> Callable:
        found = []

        def call(*args, **kwargs):
            found[:] = found or [find(*args, **kwargs)]
            return converted(found[0], dtype)

        return call

    def step(leaves: list[Tensor]) -> Tensor:
        nonlocal dtype
        dtype = leaves[0].dtype
        losses = head.loss_by_feat(leaves, *converted(others, dtype), objects, metas)['loss_cls']
        return sum(losses) if isinstance(losses, list) else losses

    for name in ('get_anchors', 'get_targets'):
        if hasattr(head, name):
            setattr(head, name, remembered(getattr(head, name)))
    step(logits)
    return step


def converted(value, dtype: torch.dtype):
    """A value with the floating-point tensors in it in this dtype."""
    if isinstance(value, (list, tuple)):
        return [converted(each, dtype) for each in value]
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def maskformer(device: str) -> tuple[list[Tensor], dict[str, Step]]:
    torch.manual_seed(0)
    logits, mask = torch.randn(20 * 128 * 128, 1, device=device), torch.rand(20 * 128 * 128, device=device) < 0.3
    labels = 1 - mask.long()

    def called(loss) -> Step:
        return lambda leaves: loss(leaves[0], labels, avg_factor=labels.numel())

    return [logits], {
        'FusedFocalLoss': called(FusedFocalLoss(loss_weight=20.0)),
        'mmdet FocalLoss': called(FocalLoss(loss_weight=20.0)),
    }


def mask_rcnn(device: str) -> tuple[list[Tensor], dict[str, Step]]:
    torch.manual_seed(0)
    n = 256
    logits = torch.randn(n, 80, 28, 28, device=device)
    masks = (torch.rand(n, 28, 28, device=device) < 0.4).float()
    labels = torch.randint(0, 80, (n,), device=device)
    fused, plain = FusedMaskFocalLoss(), FocalLoss()

    def indexed(leaves: list[Tensor]) -> Tensor:
        own = leaves[0][torch.arange(n, device=device), labels]
        return plain(own.reshape(-1, 1), 1 - masks.reshape(-1).long(), avg_factor=masks.numel())

    return [logits], {
        'FusedMaskFocalLoss': lambda leaves: fused(leaves[0], masks, labels),
        'indexing, mmdet FocalLoss': indexed,
    }


WORKS = {
    **{f'{name}, maps of 512 x 512': functools.partial(dense_head, config) for name, config in HEADS.items()},
    'MaskFormer, 20 masks of 128 x 128': maskformer,
    'Mask R-CNN, 256 masks of 28 x 28': mask_rcnn,
}


def problem(step: Step, exact: Step, logits: list[Tensor]) -> str | None:
    """What is wrong with a contender's result."""

    def result(of: Step, leaves: list[Tensor]) -> tuple[float, Tensor]:
        value = of(leaves)
        return value.item(), torch.cat([grad.flatten() for grad in torch.autograd.grad(value.sum(), leaves)]).double()

    right, right_grad = result(exact, [each.double().requires_grad_() for each in logits])
    value, grad = result(step, [each.clone().requires_grad_() for each in logits])
    if not abs(value - right) <= TOLERANCE * abs(right):
        return f'its value is {value:g} where {right:g} is right'
    off = ((grad - right_grad).abs().max() / right_grad.abs().max()).item()
    return None if off <= TOLERANCE else f'its gradient is off by {off:.2g} of the largest'


@dataclass
class MapCase:
    """Logits of all levels, which a contender is called with."""

    leaves: list[Tensor]

    @classmethod
    def copied(cls, logits: list[Tensor], _seed: int = 0) -> 'MapCase':
        """The same logits elsewhere in the memory."""
        return cls([each.detach().clone().requires_grad_() for each in logits])

    @property
    def bytes(self) -> int:
        return sum(each.nbytes for each in self.leaves)

    @property
    def gradients(self) -> list[Tensor | None]:
        return [each.grad for each in self.leaves]

    def run(self, step: Step) -> Tensor:
        return step(self.leaves).sum()

    def backward(self, value: Tensor) -> None:
        value.backward()

    def clear(self) -> None:
        for each in self.leaves:
            each.grad = None

    def clone(self) -> None:
        for each in self.leaves:
            each.grad = each.detach().clone()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--rounds', type=count, default=7, help='turns of each contender; default: %(default)s')
    parser.add_argument('--out', type=Path, default=MAPS, help='the CSV, whose rows of the same work are replaced')
    args = parser.parse_args(arguments)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no GPU here')
    if args.device == 'cuda':
        try:
            provide_mmcv_op(torch.float32)
        except CannotRunError as reason:
            parser.error(f"--device cuda: mmdet's losses, which ours are compared with, need mmcv's op: {reason}")
    source, wrong = provenance(args.device), 0
    print(', '.join(f'{name} {value or "absent"}' for name, value in source.items()))
    for work, make in WORKS.items():
        print(f'\n{work}, float32 on {args.device}', flush=True)
        logits, steps = make(args.device)
        *_, exact = steps.values()  # mmdet's formula
        for name, step in list(steps.items()):
            said = problem(step, exact, logits)
            if said is not None:
                wrong += 1
                del steps[name]
                print(f'  NOT TIMED: {name}: {said}')
        noise = Noise()
        cases = sets(functools.partial(MapCase.copied, logits), args.device)
        found = measure(cases, steps, args.rounds, args.device, turn=TURN, memory_from=0)
        say('')
        rows = [{'contender': name, **each.columns} for name, each in found.items() if name != CLONE]
        for row in rows:
            print(f'  {row["contender"]:30}{row["both_ms"]:>10} ms{row["extra_memory"]:>8} logits{row["runs"]:>6} runs')
        share = noise.share()
        if share is not None and share > NOISE:
            print(f'  NOISY: other processes took {share:.0%} of the processors: measure again on a quiet machine')
        key = {'machine': source['machine'], 'device': args.device, 'work': work}
        update(args.out, [{**key, **row, **source} for row in rows], KEY)
    print(f'\nrows written to {args.out}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
