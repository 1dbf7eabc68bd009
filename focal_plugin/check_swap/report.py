"""What another classification loss changes in a detector, and what of it would go wrong."""

from __future__ import annotations
import difflib
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from focal_plugin import hooks, metainfo, mining
from focal_plugin.check_swap import pairing, sites
from focal_plugin.check_swap.request import Loss, message, scope_of, swapped, written
from focal_plugin.check_swap.training_step import Step, build, step


@dataclass
class Report:
    """What check() found. The loss fits where nothing is refused."""

    diff: str
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    heads: dict[str, tuple[str, str]] = field(default_factory=dict)
    steps: tuple[Step, Step] | None = None

    def refuse(self, *sentences: str) -> None:
        """Adds what is not said yet."""
        self.refusals += [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.refusals]


def check(config: Config, loss: Loss, only: str = '') -> Report:
    """Swaps, builds, takes a step with both, and compares.

    Args:
        config: a detector's.
        loss: what to put in.
        only: how the names of the losses that are swapped begin.
    """
    places = list(sites.of_model(config.model, only))
    after = swapped(config, loss, only)
    report = Report(difference(config, after))
    report.refuse(*(sentence for sentence in sites.fixed(config.model) if sentence.startswith(only)))
    if not places:
        if not report.refusals:
            missing = f'nothing to swap: the model has none of {", ".join(sites.KEYS)}'
            report.refuse(f'{missing} in {only}' if only else missing)
        return report
    before, model = (attempt(build, each.model, scope_of(config)) for each in (config, after))
    if isinstance(model, Exception):
        report.refuse(*refused_unbuilt(config.model, places, loss))
        # Where neither builds, something else is missing.
        if isinstance(before, Exception) and str(before) == str(model):
            report.notes.append(f'not built, only looked up in the table of heads: {message(model)}')
        else:
            report.refuse(f'the model does not build: {message(model)}')
        return report
    training, validation = config.get('train_dataloader'), config.get('val_dataloader')
    classes = metainfo.of_config(training)
    report.refuse(*metainfo.refusals(classes), *hooks.findings(model, metainfo.counts(classes)))
    classes.update(metainfo.of_config(validation, metainfo.VALIDATION))
    report.notes += [*hooks.notes(model), *metainfo.notes(classes)]
    used = sum(type(module) is MODELS.get(loss.name) for module in model.modules())
    if used < len(places):
        report.refuse(f'{loss.name} has no effect: the config names it {len(places)} times, the model uses {used}')
    # Where no data tell, the model does: it has a head of masks.
    has_masks = any(name.rpartition('.')[2] == 'mask_head' for name, _ in model.named_modules())
    compare_steps(report, before, model, places, has_masks if training is None else loads_masks(training))
    return report


def attempt(function: Callable, *args) -> Any:
    """What it returns, or the error that it raises."""
    try:
        return function(*args)
    except Exception as error:
        return error


def compare_steps(report: Report, before: Any, after: nn.Module, places: list[sites.Site], masks: bool) -> None:
    """Adds a step of both models to the report, and what is wrong with the second."""
    first = before if isinstance(before, Exception) else attempt(step, before, masks)
    if isinstance(first, Exception):
        report.notes.append(f'no step was compared, the model as it is does not take one here: {message(first)}')
        return
    report.heads = {
        name: (channels(head), channels(after.get_submodule(name))) for name, head in losses_of(before, places)
    }
    second = attempt(step, after, masks)
    if isinstance(second, Exception):
        report.refuse(f'a training step raises {message(second)}')
        return
    report.steps = first, second
    if not all(map(math.isfinite, [*second.losses.values(), *second.norms.values()])):
        report.refuse('a training step gives a loss or a gradient that is not finite')


def refused_unbuilt(model: Any, places: list[sites.Site], loss: Loss) -> list[str]:
    """What the table of heads says where the model can't be built, and perhaps not the loss with what it inherits."""
    found: list[str] = []
    for site in places:
        head = pairing.head_of(site.kind)
        flags = {name: site.loss[name] for name in ('activated', 'from_logits') if name in site.loss}
        with suppress(Exception):
            built = MODELS.build({'type': loss.name, **flags, **loss.arguments})
            name = f'{site.path.rpartition(".")[0]} ({site.head})'
            found += [] if head is None else pairing.refusals(name, head, built)
            for path, kind in mining.miners_of_config(model):
                # A detector's train_cfg names the sampler of its region proposals rpn, that of its boxes rcnn.
                if ('rcnn' in path) == ('roi_head' in site.path):
                    found += mining.refusals(name, kind, built)
    return found


def difference(before: Config, after: Config) -> str:
    """What changed, as a unified diff."""
    parts = [
        Config({key: written(of[key]) for key in ('custom_imports', 'model') if key in of}) for of in (before, after)
    ]
    was, now = (part.pretty_text.splitlines() for part in parts)
    return '\n'.join(difflib.unified_diff(was, now, 'before', 'after', lineterm=''))


def losses_of(model: nn.Module, places: list[sites.Site]) -> Iterator[tuple[str, nn.Module]]:
    """The heads that the config's paths name, where they are modules under the same name."""
    for path in dict.fromkeys(site.path.rpartition('.')[0] for site in places):
        with suppress(AttributeError):
            yield path, model.get_submodule(path)


def channels(head: nn.Module) -> str:
    loss = next(loss for key in sites.KEYS if (loss := getattr(head, key, None)) is not None)
    sigmoid = getattr(head, 'use_sigmoid_cls', getattr(loss, 'use_sigmoid', '-'))
    count = getattr(head, 'cls_out_channels', None) or getattr(getattr(head, 'fc_cls', None), 'out_features', '-')
    return f'use_sigmoid {sigmoid}, {count} channels for {getattr(head, "num_classes", "-")} classes'


def loads_masks(loader: Any) -> bool:
    """Whether a data loader's config loads masks."""
    return any(part.get('with_mask') for _, part in sites.parts(loader))
