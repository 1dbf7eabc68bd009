"""Times whole training steps of four detectors on photos, on a CPU; rows go into tools/results/steps.csv.

    python -m tools.benchmarks.steps

The detectors are those of mmdet's configs with random weights, the photos two of tests/data/coco_mini, 512 x 384. A step is
forward, losses, backward and SGD; each contender is timed only where its losses are the first's. Memory is the most that a
step holds beyond weights, momentum and photos. loss_ms is what the class loss takes of a step: forward and backward on
what the head hands to it.
"""

from tools.training import needs_mmdet  # noqa: F401

# isort: split
import copy
import functools
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import Tensor

import focal_plugin  # noqa: F401  registers ours
from tools.benchmarks import options
from tools.benchmarks.contenders import first_line
from tools.benchmarks.measure import peak_bytes, release, timed_runs
from tools.benchmarks.results import ROOT, STEPS, four_digits, update

PHOTOS, SCALE = 2, (512, 384)
RUNS, TOLERANCE = 5, 1e-4
KEY = ('machine', 'device', 'work', 'contender')


class Detector(NamedTuple):
    """A config of mmdet, the head that reads its logits where they lie, and whether that takes cut=True."""

    config: str
    zero_copy: str
    cuts: bool


DETECTORS = {
    'RetinaNet-R18': Detector('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'FusedRetinaHead', True),
    'FCOS-R50': Detector('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'FusedFCOSHead', True),
    'CondInst-R50': Detector(
        'mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py', 'FusedCondInstBboxHead', True
    ),
    'RTMDet-tiny': Detector('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'FusedRTMDetSepBNHead', False),
}
STOCK, FUSED, ZERO_COPY, CUT = 'stock', 'fused loss', 'zero-copy head', 'cut=True'


def contenders(detector: Detector) -> list[str]:
    return [STOCK, FUSED, ZERO_COPY, *([CUT] if detector.cuts else [])]


def model_config(detector: Detector, contender: str) -> ConfigDict:
    """The model's, the loss and the head being the contender's."""
    config = get_config(detector.config).model
    config.backbone.init_cfg = None
    config.data_preprocessor.pad_size_divisor = 32  # RTMDet's photos are padded by its own pipeline
    if contender != STOCK:
        config.bbox_head.loss_cls.type = f'Fused{config.bbox_head.loss_cls.type}'
    if contender in (ZERO_COPY, CUT):
        config.bbox_head.type = detector.zero_copy
    if contender == CUT:
        config.bbox_head.cut = True
    return config


@functools.cache
def photos(with_mask: bool) -> dict:
    """A batch, with boxes and maybe masks."""
    config = Config.fromfile(ROOT / 'configs/_base_/coco_mini.py', import_custom_modules=False)
    loader = config.train_dataloader
    loader.update(batch_size=PHOTOS, sampler=dict(type='DefaultSampler', shuffle=False))
    loader.dataset.data_root = str(ROOT / loader.dataset.data_root)
    for transform in loader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.scale = SCALE
        if transform.type == 'LoadAnnotations':
            transform.with_mask = with_mask
    return next(iter(Runner.build_dataloader(loader, seed=0)))


class Training:
    """A detector in training; ``calls`` are the arguments that its last step handed to the class loss."""

    def __init__(self, detector: Detector, contender: str) -> None:
        torch.manual_seed(0)
        self.model = MODELS.build(model_config(detector, contender))
        self.model.init_weights()
        self.model.train()
        batch = copy.deepcopy(photos(with_mask=hasattr(self.model, 'mask_head')))  # which is changed in its place
        self.data = self.model.data_preprocessor(batch, training=True)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-6, momentum=0.9)
        self.loss_cls = self.model.bbox_head.loss_cls
        self.calls: list[tuple[tuple, dict]] = []
        self.loss_cls.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        self.calls.append((args, kwargs))

    def step(self) -> dict[str, Tensor]:
        """The losses before it."""
        self.calls.clear()
        loss, parts = self.model.parse_losses(self.model(**self.data, mode='loss'))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return parts

    def steps_of_loss(self) -> list[Callable[[], None]] | None:
        """Its class loss alone, on each of the last step's calls; None where it is handed what is no tensor."""
        if any(not isinstance(args[0], Tensor) for args, _ in self.calls):
            return None
        return [self._alone(*call) for call in self.calls]

    def _alone(self, args: tuple, kwargs: dict[str, Any]) -> Callable[[], None]:
        logits, *others = args
        leaf = logits.detach().requires_grad_()

        def run() -> None:
            leaf.grad = None
            self.loss_cls(leaf, *others, **kwargs).sum().backward()

        return run


def measured(detector: Detector, contender: str, right: dict[str, float]) -> tuple[dict, dict[str, float]]:
    """(a row, the losses); ValueError where these are not the right ones, of which there may be none yet."""
    training = Training(detector, contender)
    losses = {name: float(value.detach()) for name, value in training.step().items()}
    for name, value in right.items():
        if not abs(losses[name] - value) <= TOLERANCE * abs(value):
            raise ValueError(f'its {name} is {losses[name]:g} where {value:g} is right')
    peak = peak_bytes('cpu', training.step)
    alone = training.steps_of_loss()
    times = [time for (time,) in timed_runs('cpu', [[training.step]] * RUNS)]
    of_loss = timed_runs('cpu', [alone] * (RUNS + 1))[1:] if alone else []
    row = {
        'step_ms': four_digits(statistics.median(times)),
        'extra_mib': '' if peak is None else f'{peak / 2**20:.0f}',
        'loss_ms': four_digits(statistics.median(map(sum, of_loss))) if of_loss else '',
        'runs': RUNS,
    }
    return row, losses


def run(out: Path, source: dict[str, str]) -> int:
    """Times all contenders and writes their rows; gives how many fail."""
    MMLogger.get_current_instance().setLevel('WARNING')  # init_weights prints every parameter
    register_all_modules()
    wrong, right = 0, {name: {} for name in DETECTORS}
    for name, contender in [(name, each) for name, detector in DETECTORS.items() for each in contenders(detector)]:
        key = dict(machine=source['machine'], device='cpu', work=name, contender=contender)
        try:
            row, losses = measured(DETECTORS[name], contender, right[name])
        except Exception as error:  # whatever it is, the others are timed
            wrong += 1
            print(f'  NOT TIMED: {name}, {contender}: {first_line(error)}')
            continue
        right[name] = right[name] or losses
        figures = f'{row["step_ms"]:>8} ms, its class loss {row["loss_ms"] or "?":>6}{row["extra_mib"] or "?":>8} MiB'
        print(f'  {name:14}{contender:16}{figures}', flush=True)
        update(out, [{**key, **row, **source}], KEY)
        release()
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    args = options.parse(options.parser(__doc__, STEPS), arguments)
    wrong = run(args.out, options.begin('cpu'))
    print(f'\nrows written to {args.out}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
