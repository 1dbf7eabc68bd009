"""Times the losses as heads call them, on the maps and masks that heads have; rows go into tools/results/maps.csv.

    python -m tools.benchmarks.heads [--device cuda]

- The losses of the heads of RetinaNet, ATSS, FCOS, GFL, VFNet, RTMDet, TOOD and DDOD, from configs/zero_copy: batch 2,
  512 x 512 images, 80 classes, five levels of (2, A * 80, H, W) logits (RTMDet: three), A = 9 for RetinaNet and 1 for the
  others. Each head runs its own loss_by_feat, the stock one with copies of its logits. Anchors and targets are found once,
  before, the losses of boxes are left out, and the boxes lie so that their rows are no copies: what remains is what a head
  does for its class loss.
- MaskFormer's mask loss: 20 masks of 128 x 128, (M, 1) logits and labels 0 for the mask, 1 for the rest.
- Mask R-CNN's mask loss: 256 instances, (256, 80, 28, 28) logits of which the label's channel counts; the plain way picks
  it by indexing.

Each contender is timed, forward and backward, only where its value and gradient agree with mmdet's loss in float64. On a
GPU runs follow one another without waiting, each on the next copies of the logits, four times the cache together.
"""

from tools.training import needs_mmdet  # noqa: F401

# isort: split
import functools
import sys
from collections.abc import Callable, Iterator

import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from focal_plugin.losses import FusedFocalLoss, FusedMaskFocalLoss
from tools.benchmarks import options
from tools.benchmarks.compare import Work, run
from tools.benchmarks.contenders import CLONE, CannotRunError, first_line, provide_mmcv_op
from tools.benchmarks.inputs import Inputs, Loss, converted
from tools.benchmarks.results import MAPS, ROOT

KEY = ('machine', 'device', 'work', 'contender')
COLUMNS = ('contender', 'both_ms', 'gpu_ms', 'graph_ms', 'extra_memory', 'runs')
TOLERANCE = 1e-5, 1e-5  # relative, to the value and to the largest gradient
TURN = 300  # milliseconds of a contender in one round
CONFIGS = ROOT / 'configs/zero_copy'
HEADS = {
    'RetinaNet': 'retinanet_r50_fpn_1x_coco',
    'ATSS': 'atss_r50_fpn_1x_coco',
    'FCOS': 'fcos_r50-caffe_fpn_gn-head_1x_coco',
    'GFL': 'gfl_r50_fpn_1x_coco',
    'VFNet': 'vfnet_r50_fpn_1x_coco',
    'RTMDet': 'rtmdet_tiny_8xb32-300e_coco',
    'TOOD': 'tood_r50_fpn_1x_coco',
    'DDOD': 'ddod_r50_fpn_1x_coco',
}
OF_DDOD = ('get_cls_targets', 'get_reg_targets', 'calc_reweight_factor')  # the last one counts its calls
SIDE, SIZES = 512, (64, 32, 16, 8, 4)
Head = tuple[list[Tensor], dict[str, Loss]]  # logits of all levels, and the losses of them; the last one is mmdet's


def dense_head(config: str, device: str) -> Head:
    """The fused head, and the stock one with our loss and with mmdet's."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = Config.fromfile(CONFIGS / f'{config}_fused-head.py', import_custom_modules=False).model
    small = dict(in_channels=32, feat_channels=32, stacked_convs=1)  # what comes before the logits is not measured
    arguments = {**model.bbox_head, **small, 'train_cfg': model.get('train_cfg')}
    fused, loss = arguments['type'], arguments['loss_cls']['type']
    if fused == 'FusedDDODHead':
        arguments['use_dcn'] = False  # nor is this, and mmcv's takes no level of less than 3 x 3
    stock, theirs = fused.removeprefix('Fused'), loss.removeprefix('Fused')

    def built(kind: str, loss: str) -> torch.nn.Module:
        head = MODELS.build({**arguments, 'type': kind, 'loss_cls': {**arguments['loss_cls'], 'type': loss}})
        return revert_sync_batchnorm(head)  # RTMDet's needs a GPU

    heads = {
        fused: built(fused, loss),
        f'{stock}, {loss}': built(stock, loss),
        f'{stock}, mmdet {theirs}': built(stock, theirs),
    }
    sizes = SIZES[: len(heads[fused].prior_generator.strides)]
    with torch.no_grad():  # on the CPU, where VFNet's deformable convolution always is
        logits, *others = heads[fused]([torch.randn(2, 32, size, size) for size in sizes])
    logits = [torch.randn_like(level).sub_(4).to(device) for level in logits]
    if heads[fused].loss_cls.takes_probabilities:
        logits = [level.sigmoid() for level in logits]
    MessageHub.get_current_instance().update_info('epoch', 12)  # TOOD's first four have another loss
    others = [[level.to(device, memory_format=torch.channels_last) for level in kind] for kind in others]
    objects = [instances(device, SIDE, arguments['num_classes']) for _ in range(2)]
    return logits, {name: class_loss(head.to(device), logits, others, objects) for name, head in heads.items()}


def instances(device: str, side: int, classes: int) -> InstanceData:
    """Eight objects, from small ones to half of the image."""
    sizes = side * (1 + 7 * torch.rand(8, 2)) / 16
    corners = torch.rand(8, 2) * (side - sizes)
    boxes = torch.cat([corners, corners + sizes], dim=1)
    return InstanceData(bboxes=boxes.to(device), labels=torch.randint(0, classes, (8,), device=device))


class Nothing(torch.nn.Module):
    """In the place of a loss of boxes."""

    def forward(self, pred: Tensor, *args, **kwargs) -> Tensor:
        return pred.new_zeros(())


def remembered(find: Callable, given: Callable = lambda found: found) -> Callable:
    """Finds once; what was found, as `given` makes it, is what each call gives."""
    found = []

    def call(*args, **kwargs):
        found[:] = found or [find(*args, **kwargs)]
        return given(found[0])

    return call


def class_loss(head: torch.nn.Module, logits: list[Tensor], others: list, objects: list[InstanceData]) -> Loss:
    """The sum of a head's class losses, with the anchors and the targets that it finds here."""
    metas = [dict(img_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0))] * 2
    for name, _ in list(head.named_children()):
        if name.startswith('loss_') and name != 'loss_cls':
            setattr(head, name, Nothing())
    dtype = torch.float32

    def loss(*levels: Tensor) -> Tensor:
        nonlocal dtype
        dtype = levels[0].dtype
        losses = head.loss_by_feat(list(levels), *converted(others, dtype), objects, metas)['loss_cls']
        return sum(losses) if isinstance(losses, list) else losses.sum()

    for name in ('get_anchors', 'get_targets', *OF_DDOD):
        if hasattr(head, name):
            setattr(head, name, remembered(getattr(head, name), lambda found: converted(found, dtype)))
    loss(*logits)
    return loss


def maskformer(device: str) -> Head:
    torch.manual_seed(0)
    logits, mask = torch.randn(20 * 128 * 128, 1, device=device), torch.rand(20 * 128 * 128, device=device) < 0.3
    labels = 1 - mask.long()

    def called(loss: torch.nn.Module) -> Loss:
        return lambda pred: loss(pred, labels, avg_factor=labels.numel())

    return [logits], {
        'FusedFocalLoss': called(FusedFocalLoss(loss_weight=20.0)),
        'mmdet FocalLoss': called(FocalLoss(loss_weight=20.0)),
    }


def mask_rcnn(device: str) -> Head:
    torch.manual_seed(0)
    n = 256
    logits = torch.randn(n, 80, 28, 28, device=device)
    masks = (torch.rand(n, 28, 28, device=device) < 0.4).float()
    labels = torch.randint(0, 80, (n,), device=device)
    fused, plain = FusedMaskFocalLoss(), FocalLoss()

    def indexed(pred: Tensor) -> Tensor:
        selected = pred[torch.arange(n, device=device), labels]
        return plain(selected.reshape(-1, 1), 1 - masks.reshape(-1).long(), avg_factor=masks.numel())

    return [logits], {
        'FusedMaskFocalLoss': lambda pred: fused(pred, masks, labels),
        'indexing, mmdet FocalLoss': indexed,
    }


WORKS = {
    **{f'{name}, maps of 512 x 512': functools.partial(dense_head, config) for name, config in HEADS.items()},
    'MaskFormer, 20 masks of 128 x 128': maskformer,
    'Mask R-CNN, 256 masks of 28 x 28': mask_rcnn,
}


def copied(logits: list[Tensor], _seed: int) -> Inputs:
    """The same logits elsewhere in the memory."""
    return Inputs([each.detach().clone().requires_grad_() for each in logits])


def works(device: str) -> Iterator[Work]:
    for work, make in WORKS.items():
        try:
            logits, losses = make(device)
        except RuntimeError as error:  # an mmcv without the operators that a head computes its logits by
            print(f'\nleft out: {work}: {first_line(error)}')
            continue
        yield Work(
            title=f'{work}, float32',
            make=functools.partial(copied, logits),
            contenders={name: lambda pred, loss=loss: loss for name, loss in losses.items()},
            exact=list(losses.values())[-1],
            tolerance=TOLERANCE,
            rows=lambda rows, work=work: [
                {'work': work, **{name: row[name] for name in COLUMNS}} for row in rows if row['contender'] != CLONE
            ],
            turn=TURN,
        )


def main(arguments: list[str] | None = None) -> int:
    parser = options.parser(__doc__, MAPS, rounds=7)
    args = options.parse(parser, arguments)
    try:
        provide_mmcv_op(torch.empty(0, device=args.device))
    except CannotRunError as reason:
        parser.error(f"--device cuda: mmdet's losses, which ours are compared with, need mmcv's op: {reason}")
    return run(works(args.device), args, KEY)


if __name__ == '__main__':
    sys.exit(main())
