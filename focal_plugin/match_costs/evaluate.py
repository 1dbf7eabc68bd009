"""Costs of matching by a fused loss: its value for a positive minus its value for a negative."""

from __future__ import annotations
import functools
from dataclasses import replace

import torch
from torch import Tensor

from focal_plugin import functional
from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import Spec

# Logits a chunk of pixels. The logits, their two values and the chunk of the masks then stay in a CPU's second-level cache;
# on a GPU, in 16 MB each, where a chunk is long enough that its launches cost nothing.
CHUNK = {'cpu': 2**17}
GPU_CHUNK = 2**22
# Infinite logits count as this one: the assignment refuses infinite costs, and no infinity may meet a mask's 0.
LARGEST = 1e30


def of_labels(loss: FusedLoss, scores: Tensor, labels: Tensor) -> Tensor:
    """The costs (Q, G) of logits (Q, C) and int64 labels (G,); of all logits only the labels' are touched."""
    outside = None
    if scores.device.type != 'cpu':  # there check_labels did not look
        outside = (labels < 0) | (labels >= scores.size(1))
        labels = labels.masked_fill(outside, 0)
    logits = _logits(scores.index_select(1, labels))
    if outside is not None:
        logits.masked_fill_(outside, float('nan'))
    positive, negative = _values(loss, logits, labels, scores.size(1))
    return positive.sub_(negative)


def of_masks(loss: FusedLoss, pred: Tensor, masks: Tensor) -> Tensor:
    """The costs (Q, G) of logits (Q, ...) and masks (G, ...): the mean of their pixels' losses.

    Positives and negatives each meet the pixels that are theirs. The sum of all negatives plus the differences at the
    mask's pixels would be one product instead of two, but of a good match it leaves only the rounding of large sums.
    """
    pred, masks = pred.flatten(1), masks.flatten(1)
    (queries, pixels), objects = pred.shape, len(masks)
    label = torch.zeros(1, dtype=torch.int64, device=pred.device)
    step = max(1, CHUNK.get(pred.device.type, GPU_CHUNK) // max(queries, objects, 1))
    cost = pred.new_zeros((queries, objects), dtype=_arithmetic(pred))
    for start in range(0, pixels, step):
        chunk = slice(start, start + step)
        positive, negative = _values(loss, _logits(pred[:, chunk]), label, 1)
        inside = masks[:, chunk].to(cost.dtype)
        # In place: autocast leaves these alone.
        cost.addmm_(positive, inside.T)
        cost.addmm_(negative, (1 - inside).T)
    return cost.div_(max(pixels, 1))


def _arithmetic(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _logits(logits: Tensor) -> Tensor:
    """A finite copy in the dtype of the arithmetic: the losses return their logits' dtype."""
    return logits.to(_arithmetic(logits), copy=True).clamp_(-LARGEST, LARGEST)


@functools.lru_cache(maxsize=64)
def _by_element(spec: Spec) -> Spec:
    """The loss with one value per logit, and nothing done to its targets."""
    return replace(spec, per_row=False, prepare=None)


def _values(loss: FusedLoss, logits: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The loss of each logit as a positive and as a negative.

    Args:
        logits: (Q, n).
        labels: (n,), the class of each column; or (1,) for all.
        classes: how many there are.
    """
    loss.to(logits.device)  # vectors over the classes are buffers
    parameters = {name: _of_labels(getattr(loss, name), labels, classes) for name in loss.spec.defaults}

    def value(is_positive: bool) -> Tensor:
        target = torch.full((), is_positive, device=logits.device).expand(logits.shape)
        weight = _weight(loss, logits, labels if is_positive else torch.full_like(labels, classes), classes)
        return functional.apply(_by_element(loss.spec), parameters, logits, target, weight, reduction='none')

    return value(True), value(False)


def _of_labels(parameter, labels: Tensor, classes: int):
    """A parameter at the labels."""
    if not isinstance(parameter, Tensor) or parameter.numel() == 1:
        return parameter
    if parameter.numel() != classes:
        raise ValueError(
            f'{parameter.numel()} values of gamma or alpha for logits of {classes} classes: write one per class'
        )
    return parameter[labels]


def _weight(loss: FusedLoss, logits: Tensor, labels: Tensor, classes: int) -> Tensor | None:
    """What the loss multiplies rows of these labels by, (1, n), or None: 1."""
    spec = loss.applied_spec
    if spec.prepare is None:
        return None
    rows = logits.new_empty(()).expand(len(labels), classes)  # only its shape and device are read
    parameters = {name: getattr(loss, name) for name in spec.defaults}
    *_, weight = spec.prepare(rows, labels, None, None, None, **parameters)
    return None if weight is None else weight[:, 0].expand(1, logits.size(1))
