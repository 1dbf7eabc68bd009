"""Times a head's class convolution and loss as one step, with its class logits and without; rows go into cut.csv.

    python -m tools.benchmarks.cut [--device cuda] [--only TEXT] [--memory]

RetinaNet's class convolution, 3 x 3 for nine anchors, with 80, 365 (Objects365) and 1203 (LVIS) classes, and one of 1 x 1
for one anchor with 13204 (V3Det), on 256 channels: batch 2, 512 x 512 images, P3 to P7. A step is forward and backward,
down to the gradients of features, weight and bias. Anchors and targets are found before, losses of boxes are left out.

Contenders take turns, on a CPU in processes of their own, so that their peaks are their own. Memory is the most that a step
holds beyond features and weight, gradients included, by PyTorch's allocator and, on a CPU, by the whole process (VmHWM).
A contender is measured only where value and gradients for images of 128 x 128 agree with those of mmdet's head and loss in
float64. With 13204 classes mmdet's takes 6 GB.
"""

from tools.training import needs_mmdet  # noqa: F401

# isort: split
import argparse
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import focal_plugin  # noqa: F401  registers ours
from tools.benchmarks import options
from tools.benchmarks.contenders import first_line, provide_mmcv_op
from tools.benchmarks.heads import Nothing, instances, remembered
from tools.benchmarks.inputs import problem
from tools.benchmarks.measure import allocated_bytes, busy, peak_bytes, release, timed_runs
from tools.benchmarks.results import CUT, ROOT, four_digits, table, update

KEY = ('machine', 'device', 'work', 'contender')
BATCH, CHANNELS, SIDE, SMALL_SIDE = 2, 256, 512, 128
STRIDES = (8, 16, 32, 64, 128)
TOLERANCE = 1e-4, 1e-5  # relative, to the value and to the largest gradient
PROFILED = 5  # runs of a GPU whose kernels are timed one by one
TURN = 2000  # milliseconds of a contender in one round


class Work(NamedTuple):
    """A class convolution: how many classes, anchors of a place, and pixels a side of its kernel."""

    classes: int
    anchors: int
    kernel: int

    def places(self, side: int) -> int:
        return BATCH * sum((side // stride) ** 2 for stride in STRIDES)

    @property
    def logits_bytes(self) -> int:
        return 4 * self.places(SIDE) * self.anchors * self.classes


WORKS = {
    'RetinaNet, 80 classes': Work(80, 9, 3),
    'RetinaNet, 365 classes': Work(365, 9, 3),
    'RetinaNet, 1203 classes': Work(1203, 9, 3),
    'one anchor, 1 x 1, 13204 classes': Work(13204, 1, 1),
}
MMDET = 'RetinaHead, mmdet FocalLoss'
CONTENDERS = {
    MMDET: dict(type='RetinaHead', loss='FocalLoss'),
    'RetinaHead, FusedFocalLoss': dict(type='RetinaHead', loss='FusedFocalLoss'),
    'FusedRetinaHead': dict(type='FusedRetinaHead', loss='FusedFocalLoss'),
    **{f'cut={cut}': dict(type='FusedRetinaHead', loss='FusedFocalLoss', cut=cut) for cut in (8, 32, True)},
}


class Step:
    """The class convolution and loss of a head, and what gets gradients of it.

    Args:
        work, contender: what of WORKS and CONTENDERS.
        side: pixels of an image.
    """

    def __init__(self, work: Work, contender: str, side: int, device: str, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.head = head_of(work, **CONTENDERS[contender]).to(device, dtype)
        sizes = [side // stride for stride in STRIDES]
        self.features = [
            torch.randn(BATCH, CHANNELS, size, size, device=device).to(dtype).requires_grad_() for size in sizes
        ]
        metas = dict(img_shape=(side, side), pad_shape=(side, side), scale_factor=(1.0, 1.0))
        self.samples = [
            DetDataSample(metainfo=metas, gt_instances=instances(device, side, work.classes)) for _ in range(BATCH)
        ]

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.features, self.head.retina_cls.weight, self.head.retina_cls.bias]

    def forward(self) -> None:
        losses = self.head.loss(self.features, self.samples)['loss_cls']
        self.value = sum(losses) if isinstance(losses, list) else losses

    def backward(self) -> None:
        self.value.backward()
        del self.value

    def clear(self) -> None:
        """Frees the gradients."""
        for leaf in self.leaves:
            leaf.grad = None

    def run(self) -> None:
        self.forward()
        self.backward()

    def result(self) -> tuple[float, list[Tensor]]:
        """Value and gradients."""
        self.forward()
        value = self.value.item()
        self.backward()
        return value, [leaf.grad for leaf in self.leaves]


class NoBoxes(nn.Module):
    """In the place of the convolution to boxes: as many channels, made of nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        return features[:, : self.channels].detach()


def head_of(work: Work, type: str, loss: str, **arguments) -> RetinaHead:
    """A head whose class convolution reads the features themselves, and whose other parts cost nothing."""
    init_default_scope('mmdet')
    scales = dict(octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0])
    if work.anchors == 1:
        scales = dict(octave_base_scale=8, scales_per_octave=1, ratios=[1.0])
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
    config = dict(
        type=type,
        num_classes=work.classes,
        in_channels=CHANNELS,
        feat_channels=CHANNELS,
        stacked_convs=0,
        anchor_generator=dict(type='AnchorGenerator', strides=STRIDES, **scales),
        loss_cls=dict(type=loss, use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        train_cfg=dict(assigner=assigner, sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1),
    )
    head = MODELS.build(ConfigDict(**config, **arguments))
    head.retina_cls = nn.Conv2d(CHANNELS, work.anchors * work.classes, work.kernel, padding=work.kernel // 2)
    nn.init.constant_(head.retina_cls.bias, -4.0)  # most logits say background
    head.retina_reg, head.loss_bbox = NoBoxes(4 * work.anchors), Nothing()
    for name in ('get_anchors', 'get_targets'):
        setattr(head, name, remembered(getattr(head, name)))
    return head


def wrong(work: Work, contender: str, device: str) -> str | None:
    """What is wrong with the value and the gradients for small images, of which a GPU's TF32 would change three digits."""
    right = Step(work, MMDET, SMALL_SIDE, device, torch.float64).result()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return problem(Step(work, contender, SMALL_SIDE, device).result(), right, TOLERANCE)


def figures(work: Work, contender: str, device: str, timed: bool) -> dict:
    """What this process measures of a contender: bytes, and milliseconds of some runs; ValueError for wrong results."""
    provide_mmcv_op(torch.empty(0, device=device))  # mmdet's loss is what all are held to
    said = wrong(work, contender, device)
    if said is not None:
        raise ValueError(said)
    release()
    step = Step(work, contender, SIDE, device)
    with torch.no_grad():
        step.forward()  # anchors and targets are found, and what is made once
    peak = peak_bytes(device, step.run)
    step.clear()
    found = {'peak': peak, 'allocated': allocated_bytes(step.run) if device == 'cpu' else peak, 'times': []}
    if timed:
        first = sum(timed_runs(device, runs_of(step, 2))[-1])
        found['times'] = [sum(run) for run in timed_runs(device, runs_of(step, max(2, int(TURN / first))))]
        found['gpu'] = busy(runs_of(step, PROFILED)) if device == 'cuda' else None
    return found


def runs_of(step: Step, count: int) -> list[tuple[Callable, Callable]]:
    """The steps of so many runs, each of which leaves its gradients to the next one to free."""

    def forward() -> None:
        step.clear()
        step.forward()

    return [(forward, step.backward)] * count


def measured(work: str, contender: str, device: str, timed: bool) -> dict | None:
    """The figures, on a CPU from a process of its own; None, said, where it fails."""
    if device == 'cuda':  # whose allocator tells the peak of a step, whatever the process did before
        try:
            return figures(WORKS[work], contender, device, timed)
        except Exception as error:  # whatever it is, the others are measured
            print(f'  NOT MEASURED: {contender}: {first_line(error)}')
            return None
    command = [sys.executable, '-m', 'tools.benchmarks.cut', '--device', device, '--one', work, contender]
    command += [] if timed else ['--memory']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print(f'  NOT MEASURED: {contender}: {(done.stderr.strip().splitlines() or [done.returncode])[-1]}')
        return None
    return json.loads(done.stdout.splitlines()[-1])


def row(work: str, contender: str, device: str, rounds: Sequence[dict]) -> dict:
    times = list(itertools.chain.from_iterable(each['times'] for each in rounds))
    gpu = [each['gpu'] for each in rounds if each.get('gpu')]
    peak, allocated = (statistics.median(each[name] for each in rounds) for name in ('peak', 'allocated'))
    return {
        'work': work,
        'contender': contender,
        'both_ms': four_digits(statistics.median(times)) if times else '',
        'gpu_ms': four_digits(statistics.median(gpu)) if gpu else '',
        'allocated_mb': f'{allocated / 1e6:.0f}',
        'process_mb': f'{peak / 1e6:.0f}' if device == 'cpu' else '',
        'logits_mb': f'{WORKS[work].logits_bytes / 1e6:.0f}',
        'runs': len(times),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = options.parser(__doc__, CUT, rounds=3)
    parser.add_argument('--only', default='', help="measures those whose 'work: contender' holds this text")
    parser.add_argument('--memory', action='store_true', help='measures no times, which other processes would disturb')
    parser.add_argument('--one', nargs=2, metavar=('WORK', 'CONTENDER'), help=argparse.SUPPRESS)
    args = options.parse(parser, arguments)
    if args.one:
        work, contender = args.one
        print(json.dumps(figures(WORKS[work], contender, args.device, not args.memory)))
        return 0
    source, failed = options.begin(args.device), 0
    head = {'machine': source['machine'], 'device': args.device}
    for work in WORKS:
        names = [name for name in CONTENDERS if args.only in f'{work}: {name}']
        rounds = {name: [] for name in names}
        for _, name in itertools.product(range(1 if args.memory else args.rounds), names):
            found = measured(work, name, args.device, not args.memory)
            failed += found is None
            rounds[name] += [found] if found else []
        rows = [row(work, name, args.device, each) for name, each in rounds.items() if each]
        if rows:
            print(f'\n{table(rows)}', flush=True)
            update(args.out, [{**head, **each, **source} for each in rows], KEY)
    print(f'\nrows written to {args.out}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
