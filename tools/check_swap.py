"""Shows what another classification loss changes in a config, and says what would silently train wrong.

Every loss_cls of the model is replaced by the registry class NAME; what stands beside its type stays, as where your config
inherits this one and writes loss_cls=dict(type=NAME). Both models are built on the CPU, without pretrained weights, and
take one training step from the same seed on two synthetic photos.

Exit status: 0 the loss fits, 1 it does not, or would silently train wrong, 2 wrong usage.
"""

import argparse
import ast
import copy
import difflib
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config, DictAction
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.structures import InstanceData, PixelData
from torch import nn

from focal_plugin import hooks, swap
from focal_plugin.losses.base import FusedLoss

# Three cells at stride 128, where deformable convolutions need them.
SIZE = 384
# x1, y1, x2, y2 of two photos, in sixteenths: large, small, overlapping.
BOXES = [[[1, 1, 5, 6], [4, 3, 15, 14], [1, 8, 3, 10]], [[2, 1, 14, 15], [4, 5, 6, 7]]]
IMPORTS = dict(imports=['focal_plugin'], allow_failed_imports=False)


class UsageError(Exception):
    """What the user has to write otherwise."""


@dataclass(frozen=True)
class Loss:
    """A registry class and the arguments that are given to it, as written on the command line: NAME,key=value,..."""

    text: str
    name: str
    arguments: dict[str, Any] = field(hash=False)


@dataclass
class Step:
    """One training step: losses and gradient norms by name, what was handed to the losses, and its time."""

    losses: dict[str, float]
    norms: dict[str, float]
    calls: dict[str, str]
    milliseconds: float


@dataclass
class Report:
    """What check() found. The loss fits where nothing is refused."""

    diff: str
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    heads: dict[str, tuple[str, str]] = field(default_factory=dict)
    steps: tuple[Step, Step] | None = None


def parse_loss(text: str) -> Loss:
    """Reads NAME or NAME,key=value,...; UsageError says what is wrong, with a suggestion for an unknown name."""
    name, _, rest = text.partition(',')
    if MODELS.get(name) is None:
        raise UsageError(f'no loss is called {name!r}{suggestion(name, loss_names())}')
    try:
        call = ast.parse(f'f({rest})', mode='eval').body
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        wrong = bool(call.args) or None in arguments
    except (SyntaxError, ValueError):
        wrong = True
    if wrong:
        raise UsageError(
            f'{text!r}: write NAME or NAME,key=value,... with numbers, lists, None, True or False as values'
        )
    return Loss(text, name, arguments)


def loss_names() -> list[str]:
    """The losses of mmdet and the fused ones."""
    return sorted(
        name
        for name, kind in MODELS.module_dict.items()
        if issubclass(kind, FusedLoss) or kind.__module__.startswith('mmdet.models.losses')
    )


def suggestion(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, cutoff=0.5) or [other for other in names if other.startswith('Fused')]
    return f'. Did you mean {" or ".join(near)}?'


def read_config(path: str, options: dict | None) -> Config:
    """The config, its own modules and mmdet's imported; UsageError where it has no model."""
    register_all_modules(init_default_scope=True)
    if not Path(path).is_file():
        raise UsageError(f'{path}: no such file')
    config = Config.fromfile(path)
    config.merge_from_dict(options or {})
    if 'model' not in config:
        raise UsageError(f'{path}: the config has no model')
    return config


def swapped(config: Config, loss: Loss, only: str) -> Config:
    """The config with the loss wherever a classification loss stands, and focal_plugin imported."""
    config = copy.deepcopy(config)
    config.model = swap.swapped(config.model, loss.name, loss.arguments, only)
    imports = list(config.get('custom_imports', {}).get('imports', ()))
    if not any(name.startswith('focal_plugin') for name in imports):
        config.custom_imports = dict(IMPORTS, imports=[*imports, *IMPORTS['imports']])
    return config


def check(config: Config, loss: Loss, only: str = '') -> Report:
    """Swaps, builds, takes a step with both, and compares.

    Args:
        config: a detector's.
        loss: what to put in.
        only: how the names of the losses that are swapped begin.
    """
    sites = list(swap.sites(config.model, only))
    after = swapped(config, loss, only)
    report = Report(difference(config, after))
    report.refusals += [sentence for sentence in swap.fixed(config.model) if sentence.startswith(only)]
    if not sites:
        nothing = f'nothing to swap: the model has none of {", ".join(swap.KEYS)}' + f' in {only}' * bool(only)
        report.refusals = report.refusals or [nothing]
        return report
    before, model = attempt(build, config.model), attempt(build, after.model)
    if isinstance(model, Exception):
        found = refused_unbuilt(sites, loss)
        # Where neither builds, something else is missing.
        if isinstance(before, Exception) and str(before) == str(model):
            report.notes.append(f'not built, only looked up in the table of heads: {message(model)}')
        else:
            found.append(f'the model does not build: {message(model)}')
        report.refusals = list(dict.fromkeys([*report.refusals, *found]))
        return report
    found = hooks.findings(model, classes_of_data(config))
    report.refusals = list(dict.fromkeys([*report.refusals, *found]))
    report.notes += hooks.notes(model)
    used = sum(type(module) is MODELS.get(loss.name) for module in model.modules())
    if used < len(sites):
        report.refusals.append(
            f'{loss.name} has no effect: the config names it {len(sites)} times, the model uses {used}'
        )
    compare_steps(report, before, model, sites, loads_masks(config.get('train_dataloader')))
    return report


def attempt(function: Callable, *args) -> Any:
    """What it returns, or the error that it raises."""
    try:
        return function(*args)
    except Exception as error:
        return error


def compare_steps(report: Report, before: Any, after: nn.Module, sites: list[swap.Site], masks: bool) -> None:
    """Adds a step of both models to the report, and what is wrong with the second."""
    first = before if isinstance(before, Exception) else attempt(step, before, masks)
    if isinstance(first, Exception):
        report.notes.append(f'no step was compared, the model as it is does not take one here: {message(first)}')
        return
    report.heads = {
        name: (channels(head), channels(after.get_submodule(name))) for name, head in losses_of(before, sites)
    }
    second = attempt(step, after, masks)
    if isinstance(second, Exception):
        report.refusals.append(f'a training step raises {message(second)}')
        return
    report.steps = first, second
    if not all(map(math.isfinite, [*second.losses.values(), *second.norms.values()])):
        report.refusals.append('a training step gives a loss or a gradient that is not finite')


def refused_unbuilt(sites: list[swap.Site], loss: Loss) -> list[str]:
    """What the table of heads says where the model can't be built, and perhaps not the loss with what it inherits."""
    found = []
    for site in sites:
        head = swap.head_of(site.head)
        flags = {name: site.loss[name] for name in ('activated', 'from_logits') if name in site.loss}
        with suppress(Exception):
            built = MODELS.build({'type': loss.name, **flags, **loss.arguments})
            found += [] if head is None else swap.refusals(f'{site.path.rpartition(".")[0]} ({site.head})', head, built)
    return found


def difference(before: Config, after: Config) -> str:
    """What changed, as a unified diff."""
    texts = [
        Config({key: config[key] for key in ('custom_imports', 'model') if key in config}).pretty_text.splitlines()
        for config in (before, after)
    ]
    return '\n'.join(difflib.unified_diff(*texts, 'before', 'after', lineterm=''))


def build(config: dict) -> nn.Module:
    """The model, initialised from seed 0, without pretrained weights or augmentation of whole batches."""
    config = copy.deepcopy(config)
    strip(config)
    init_default_scope('mmdet')
    set_random_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    # A distilling detector's train() returns nothing.
    model.train()
    return model


def strip(node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ('pretrained', 'batch_augments', 'teacher_ckpt'):
                node[key] = None
            elif key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained':
                node[key] = None
            else:
                strip(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            strip(value)


def losses_of(model: nn.Module, sites: list[swap.Site]) -> Iterator[tuple[str, nn.Module]]:
    """The heads that the config's paths name, where they are modules under the same name."""
    for path in dict.fromkeys(site.path.rpartition('.')[0] for site in sites):
        with suppress(AttributeError):
            yield path, model.get_submodule(path)


def channels(head: nn.Module) -> str:
    loss = next(loss for key in swap.KEYS if (loss := getattr(head, key, None)) is not None)
    sigmoid = getattr(head, 'use_sigmoid_cls', getattr(loss, 'use_sigmoid', '-'))
    count = getattr(head, 'cls_out_channels', None) or getattr(getattr(head, 'fc_cls', None), 'out_features', '-')
    return f'use_sigmoid {sigmoid}, {count} channels for {getattr(head, "num_classes", "-")} classes'


def classes_of_data(config: Config) -> int | None:
    """The number of classes of the training set, where the config or its class tells."""
    dataset = config.get('train_dataloader', {}).get('dataset', {})
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    classes = (dataset.get('metainfo') or {}).get('classes')
    classes = classes or getattr(DATASETS.get(dataset.get('type', '')), 'METAINFO', {}).get('classes')
    return None if classes is None else len(classes)


def step(model: nn.Module, masks: bool) -> Step:
    """One step from seed 0; the time is that of a second, equal one."""
    calls: dict[str, list[str]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs, path=path: calls.setdefault(path, []).append(call(args, kwargs)), with_kwargs=True
        )
        for path, module in model.named_modules()
        if path.rpartition('.')[2] in swap.KEYS
    ]
    losses = backward(model, masks)
    for handle in handles:
        handle.remove()
    norms = {'all': norm(model)}
    norms |= {head: norm(model.get_submodule(head)) for head in (path.rpartition('.')[0] for path in calls)}
    model.zero_grad()
    start = time.perf_counter()
    backward(model, masks)
    milliseconds = 1e3 * (time.perf_counter() - start)
    counted = {path: f'{len(texts)} x, first {texts[0]}' for path, texts in calls.items()}
    return Step(losses, norms, counted, milliseconds)


def backward(model: nn.Module, masks: bool) -> dict[str, float]:
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


def loads_masks(pipeline: Any) -> bool:
    """Whether a data loader's config loads masks."""
    if isinstance(pipeline, dict):
        return bool(pipeline.get('with_mask')) or any(map(loads_masks, pipeline.values()))
    return isinstance(pipeline, (list, tuple)) and any(map(loads_masks, pipeline))


def inputs(model: nn.Module, masks: bool) -> dict:
    """Two photos of noise with boxes of the first and the last class, a semantic map and, if wanted, masks."""
    counts = [getattr(module, 'num_classes', None) for module in model.modules()]
    classes = max((count for count in counts if isinstance(count, int)), default=1)
    samples = []
    for sixteenths in BOXES:
        boxes = torch.tensor(sixteenths) * SIZE / 16
        labels = torch.tensor([0, classes - 1, 0])[: len(boxes)]
        instances = InstanceData(bboxes=HorizontalBoxes(boxes), labels=labels)
        if masks:
            instances.masks = BitmapMasks(rectangles(boxes), SIZE, SIZE)
        metainfo = dict(
            img_id=len(samples),
            img_path='',
            img_shape=(SIZE, SIZE),
            ori_shape=(SIZE, SIZE),
            scale_factor=(1.0, 1.0),
            border=(0, 0, 0, 0),
            flip=False,
        )
        sample = DetDataSample(
            metainfo=metainfo,
            gt_instances=instances,
            ignored_instances=InstanceData(bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=labels[:0]),
            gt_sem_seg=PixelData(sem_seg=torch.zeros(1, SIZE, SIZE, dtype=torch.long)),
        )
        samples.append(sample)
    photos = [torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in samples]
    return dict(inputs=photos, data_samples=samples)


def rectangles(boxes: torch.Tensor) -> np.ndarray:
    masks = np.zeros((len(boxes), SIZE, SIZE), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def call(args: tuple, kwargs: dict) -> str:
    """How a loss is called: shapes of tensors, a tuple in brackets."""
    return ', '.join([*map(shown, args), *(f'{name}={shown(value)}' for name, value in kwargs.items())])


def shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f'{str(value.dtype).removeprefix("torch.")}{tuple(value.shape)}'
    return f'({", ".join(map(shown, value))})' if isinstance(value, tuple) else repr(value)


def message(error: Exception) -> str:
    """Type and first lines of an error, without mmengine's prefix for builders."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:400]}'


def table(before: str, after: str, report: Report) -> str:
    rows = [('', before, after)]
    for name in dict.fromkeys(name for step in report.steps for name in step.losses):
        rows.append((name, *(number(step.losses.get(name)) for step in report.steps)))
    for name in dict.fromkeys(name for step in report.steps for name in step.norms):
        title = 'gradient norm' if name == 'all' else f'gradient norm, {name}'
        rows.append((title, *(number(step.norms.get(name)) for step in report.steps)))
    rows.append(('time of the step (ms)', *(f'{step.milliseconds:.0f}' for step in report.steps)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'


def show(path: str, before: str, loss: Loss, report: Report) -> None:
    print(f'== {path} with {loss.text}\n{report.diff}')
    for name, (was, now) in report.heads.items():
        print(f'\n== {name}: {was}' + (f'\n   becomes {now}' if now != was else ''))
        calls = report.steps[1].calls if report.steps else {}
        for key in (key for key in calls if key.rpartition('.')[0] == name):
            print(f'   calls {key.rpartition(".")[2]} {calls[key]}')
    if report.steps:
        print(f'\n== one training step, 2 photos of {SIZE} x {SIZE}, seed 0\n{table(before, loss.text, report)}')
    for title, sentences in (('to know', report.notes), ('wrong', report.refusals)):
        if sentences:
            print(f'\n== {title}\n' + '\n'.join(f'- {sentence}' for sentence in sentences))
    print(f'\n{loss.name} {"does not fit" if report.refusals else "fits"}')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a detector')
    parser.add_argument(
        '--loss', required=True, metavar='NAME', help='a registry class; NAME,key=value,... with arguments'
    )
    parser.add_argument('--only', default='', metavar='PATH', help='swap only here, as in roi_head.bbox_head')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='changes of the config'
    )
    args = parser.parse_args()
    # What a loss warns about stands in the report; mmengine logs every weight that it initialises.
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    try:
        config = read_config(args.config, args.cfg_options)
        loss = parse_loss(args.loss)
    except UsageError as error:
        parser.error(str(error))
    before = ' + '.join(dict.fromkeys(swap.type_name(site.loss.type) for site in swap.sites(config.model, args.only)))
    report = check(config, loss, args.only)
    show(args.config, before, loss, report)
    return 1 if report.refusals else 0


if __name__ == '__main__':
    raise SystemExit(main())
