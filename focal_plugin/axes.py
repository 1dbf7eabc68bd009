"""Where mmdet's losses have the classes, and how they multiply a weight.

``focal_plugin.functional`` has the classes in the last dimension always.
"""

from __future__ import annotations
from typing import Any

from torch import Tensor

from focal_plugin.tensors import summable


def classes_last(pred: Tensor, target, weight: Tensor | None) -> tuple[Tensor, Any, Tensor | None]:
    """(pred, target, weight) of a quality focal loss as views with the classes last; in mmdet they are dimension 1."""
    if not isinstance(pred, Tensor) or pred.dim() < 2:
        return pred, target, weight
    if pred.dim() == 2:
        return pred, target, spread(pred, weight, pred.shape[:1])
    rows = (pred.size(0), *pred.shape[2:])
    weight = spread(pred, weight, rows)

    def moved(name: str, operand):
        """An operand of pred's shape; one per row stays, and what is neither is refused with pred's shape as it was."""
        if not isinstance(operand, Tensor) or operand.shape == rows:
            return operand
        if operand.shape in (pred.shape, (pred.numel(),)):
            return operand.reshape(pred.shape).movedim(1, -1)
        raise ValueError(
            f'{name} of shape {tuple(operand.shape)} does not fit pred of shape {tuple(pred.shape)}, whose classes are '
            f"dimension 1, as in mmdet's quality_focal_loss: write one number per row {rows} or one per element "
            f'{tuple(pred.shape)}; logits with the classes last go into pred.flatten(0, -2)'
        )

    if not isinstance(target, (tuple, list)):
        target = moved('target', target)
    return pred.movedim(1, -1), target, moved('weight', spread(pred, weight))


def spread(pred: Tensor, weight: Tensor | None, shape: tuple[int, ...] | None = None) -> Tensor | None:
    """A weight as mmdet multiplies it: expanded to a shape, pred's by default, where each of as many sizes is 1 or the
    shape's.

    One of fewer dimensions, but for 0, stays: (C,) would be one per class, and with as many rows as classes one per row.
    """
    shape = pred.shape if shape is None else shape
    if not isinstance(weight, Tensor) or weight.dim() not in (0, len(shape)) or weight.shape == shape:
        return weight
    sizes = zip(weight.shape, shape)
    if not all(size == 1 or size == of_shape for size, of_shape in sizes):
        return weight
    return summable(pred, weight).expand(shape)
