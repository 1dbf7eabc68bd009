"""Times a training step of RetinaNet-R50 with mmdet's loss and with ours; rows go into tools/results/training.csv.

The model is that of mmdet's config with random weights, photos and boxes are made up and on the device already: nothing is
downloaded. A step is forward, losses, backward and SGD; float16 and bfloat16 are autocast, float16 with a loss scaler.
What starts from another class loss than the first contender in float32 is not timed. Memory is the most that a step holds
beyond weights, momentum and images.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import Tensor

import focal_plugin  # noqa: F401  registers ours
from tools.benchmarks.budget import Budget
from tools.benchmarks.cases import DTYPES
from tools.benchmarks.contenders import CannotRunError, first_line, provide_mmcv_op
from tools.benchmarks.measure import peak_bytes, release, timed_runs
from tools.benchmarks.results import TRAINING, provenance, update
from tools.training import needs_mmdet  # noqa: F401

CONFIG = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
IMAGES, SIZE, OBJECTS = 2, (800, 1216), 7  # of a batch, an image, and in an image
CONTENDERS = (('RetinaHead', 'FocalLoss'), ('RetinaHead', 'FusedFocalLoss'), ('FusedRetinaHead', 'FusedFocalLoss'))
WARM_UP, RUNS = 3, 12
TOLERANCE = {'float32': 1e-3, 'float16': 0.05, 'bfloat16': 0.05}  # of the first loss
KEY = ('machine', 'device', 'work', 'precision', 'contender')


def model_config() -> ConfigDict:
    config = get_config(CONFIG).model
    config.backbone.init_cfg = None
    return config


def build(head: str, loss: str, device: str) -> torch.nn.Module:
    """The same weights for each."""
    config = model_config()
    config.bbox_head.type, config.bbox_head.loss_cls.type = head, loss
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model.to(device).train()


def batch(model: torch.nn.Module) -> dict:
    """Noise with boxes of a tenth to half of its size, as the model's forward takes it."""
    generator = torch.Generator().manual_seed(0)
    height, width = SIZE
    images, samples = [], []
    for _ in range(IMAGES):
        images.append(torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=generator))
        corner, extent = torch.rand(2, OBJECTS, 2, generator=generator)
        extent = 0.1 + 0.4 * extent
        corner *= 1 - extent
        boxes = torch.cat([corner, corner + extent], 1) * torch.tensor([width, height] * 2)
        labels = torch.randint(0, model.bbox_head.num_classes, (OBJECTS,), generator=generator)
        sample = DetDataSample(metainfo=dict(img_shape=SIZE))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    return model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)


def step(model: torch.nn.Module, precision: str, device: str) -> Callable[[], Tensor]:
    """A training step, which gives the class loss before it."""
    data, dtype = batch(model), DTYPES[precision]
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
    if device == 'cuda' and loss == 'FocalLoss':
        provide_mmcv_op(DTYPES[precision])
    run = step(build(head, loss, device), precision, device)
    first = run().item()
    if right is not None and not abs(first - right) <= TOLERANCE[precision] * abs(right):
        raise ValueError(f'its class loss is {first:g} where {right:g} is right')
    for _ in range(WARM_UP):
        run()
    extra = peak_bytes(device, run)
    times = [time for (time,) in timed_runs(device, ([run] for _ in range(RUNS)))]
    return {
        'step_ms': f'{statistics.median(times):.4g}',
        'extra_mib': '' if extra is None else f'{extra / 2**20:.0f}',
        'loss_cls': f'{first:.6g}',
        'runs': len(times),
    }


def run(device: str, out: Path, source: dict[str, str], budget: Budget) -> int:
    """Times all contenders and writes their rows; gives how many fail."""
    register_all_modules()
    MMLogger.get_current_instance().setLevel('WARNING')  # below, init_weights prints every parameter
    work = f'RetinaNet-R50, {IMAGES} images of {SIZE[0]} x {SIZE[1]}'
    print(f'\nTraining step: {work}, on {device}', flush=True)
    works = {
        f'{head}, {loss}, {precision}': (head, loss, precision) for precision in DTYPES for head, loss in CONTENDERS
    }
    right, wrong = None, 0
    for head, loss, precision in budget.within(works):
        name = f'{precision:9} {head}, {loss}'
        try:
            row = measured(head, loss, precision, device, right)
        except CannotRunError as reason:
            print(f'  left out: {name}: {reason}')
        except torch.cuda.OutOfMemoryError:
            print(f'  left out: {name}: out of GPU memory')
        except Exception as error:  # whatever it is, the others are timed
            wrong += 1
            print(f'  NOT TIMED: {name}: {first_line(error)}')
        else:
            right = right or float(row['loss_cls'])
            print(
                f'  {name:45}{row["step_ms"]:>10} ms{row["extra_mib"] or "?":>8} MiB{row["runs"]:>6} runs', flush=True
            )
            key = {'machine': source['machine'], 'device': device, 'work': work, 'precision': precision}
            update(out, [{**key, 'contender': f'{head}, {loss}', **row, **source}], KEY)
        release()
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--out', type=Path, default=TRAINING, help='the CSV, whose rows of the same work are replaced')
    args = parser.parse_args(arguments)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no GPU here')
    wrong = run(args.device, args.out, provenance(args.device), Budget(None))
    print(f'\nrows written to {args.out}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
