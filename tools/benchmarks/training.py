"""Times a training step of RetinaNet-R50 with mmdet's loss and with ours; rows go into tools/results/training.csv.

    python -m tools.benchmarks.training [--device cuda]

The model is that of mmdet's config with random weights, photos and boxes are made up and on the device already: nothing is
downloaded. A step is forward, losses, backward and SGD; float16 and bfloat16 are autocast, float16 with a loss scaler.
What starts from another class loss than the first contender in float32 is not timed. Memory is the most that a step holds
beyond weights, momentum and images; gpu_ms is what the GPU's kernels take of a step, by CUDA's profiler.
"""

from tools.training import needs_mmdet  # noqa: F401

# isort: split
import itertools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from torch import Tensor

import focal_plugin  # noqa: F401  registers ours
from tools.benchmarks import options
from tools.benchmarks.contenders import CannotRunError, first_line, provide_mmcv_op
from tools.benchmarks.inputs import DTYPES
from tools.benchmarks.measure import busy, peak_bytes, release, timed_runs
from tools.benchmarks.results import TRAINING, four_digits, update

CONFIG = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
IMAGES, SIZE, OBJECTS = 2, (800, 1216), 7  # of a batch, an image, and in an image
CONTENDERS = (('RetinaHead', 'FocalLoss'), ('RetinaHead', 'FusedFocalLoss'), ('FusedRetinaHead', 'FusedFocalLoss'))
WARM_UP, RUNS, PROFILED = 3, 12, 3
TOLERANCE = {'float32': 1e-3, 'float16': 0.05, 'bfloat16': 0.05}  # of the first loss
KEY = ('machine', 'device', 'work', 'precision', 'contender')


def model_config() -> ConfigDict:
    config = get_config(CONFIG).model
    config.backbone.init_cfg = None
    return config


def build(head: str, loss: str, device: str) -> torch.nn.Module:
    """The same weights for each."""
    register_all_modules()
    config = model_config()
    config.bbox_head.type, config.bbox_head.loss_cls.type = head, loss
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model.to(device).train()


def step(model: torch.nn.Module, precision: str, device: str) -> Callable[[], Tensor]:
    """A training step, which gives the class loss before it."""
    classes = model.bbox_head.num_classes
    photos = demo_mm_inputs(IMAGES, [(3, *SIZE)] * IMAGES, [OBJECTS] * IMAGES, classes)
    data, dtype = model.data_preprocessor(photos, training=True), DTYPES[precision]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device, enabled=precision == 'float16')

    def run() -> Tensor:
        with torch.autocast(device, dtype, enabled=precision != 'float32'):
            loss, parts = model.parse_losses(model(**data, mode='loss'))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return parts['loss_cls'].detach()

    return run


def measured(head: str, loss: str, precision: str, device: str, right: float | None) -> dict:
    """A row. `right` is what the first loss has to be.

    Raises:
        CannotRunError: the loss can't run here.
        ValueError: it is wrong.
    """
    if loss == 'FocalLoss':
        provide_mmcv_op(torch.empty(0, dtype=DTYPES[precision], device=device))
    run = step(build(head, loss, device), precision, device)
    first = run().item()
    if right is not None and not abs(first - right) <= TOLERANCE[precision] * abs(right):
        raise ValueError(f'its class loss is {first:g} where {right:g} is right')
    for _ in range(WARM_UP):
        run()
    extra = peak_bytes(device, run)
    times = [time for (time,) in timed_runs(device, ([run] for _ in range(RUNS)))]
    return {
        'step_ms': four_digits(statistics.median(times)),
        'gpu_ms': four_digits(busy([run] for _ in range(PROFILED))) if device == 'cuda' else '',
        'extra_mib': '' if extra is None else f'{extra / 2**20:.0f}',
        'loss_cls': f'{first:.6g}',
        'runs': len(times),
    }


def run(device: str, out: Path, source: dict[str, str]) -> int:
    """Times all contenders and writes their rows; gives how many fail."""
    MMLogger.get_current_instance().setLevel('WARNING')  # below, init_weights prints every parameter
    work = f'RetinaNet-R50, {IMAGES} images of {SIZE[0]} x {SIZE[1]}'
    print(f'\nTraining step: {work}, on {device}', flush=True)
    right, wrong = None, 0
    for precision, names in itertools.product(DTYPES, CONTENDERS):
        contender = ', '.join(names)
        key = dict(machine=source['machine'], device=device, work=work, precision=precision, contender=contender)
        try:
            row = measured(*names, precision, device, right)
            right = right or float(row['loss_cls'])
            figures = f'{row["step_ms"]:>10} ms{row["gpu_ms"] or "-":>8} of the GPU{row["extra_mib"] or "?":>8} MiB'
            print(f'  {precision:9} {contender:45}{figures}', flush=True)
            update(out, [{**key, **row, **source}], KEY)
        except CannotRunError as reason:
            print(f'  left out: {precision} {contender}: {reason}')
        except torch.cuda.OutOfMemoryError:
            print(f'  left out: {precision} {contender}: out of GPU memory')
        except Exception as error:  # whatever it is, the others are timed
            wrong += 1
            print(f'  NOT TIMED: {precision} {contender}: {first_line(error)}')
        release()
    return wrong


def main(arguments: list[str] | None = None) -> int:
    args = options.parse(options.parser(__doc__, TRAINING), arguments)
    wrong = run(args.device, args.out, options.begin(args.device))
    print(f'\nrows written to {args.out}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
