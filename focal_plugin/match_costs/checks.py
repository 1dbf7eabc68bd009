"""What the costs of matching refuse, with the value and the remedy."""

from __future__ import annotations
from numbers import Real

from mmdet.registry import MODELS
from torch import Tensor

from focal_plugin import arguments
from focal_plugin.losses import FusedFocalLoss
from focal_plugin.losses.base import FusedLoss
from focal_plugin.tensors import INTEGERS, canonical_tensor


def built(kind: str, config: dict | None, given: dict, binary: bool) -> FusedLoss:
    """The loss of a cost, from its config or from the alpha and gamma given to the cost."""
    if config is None:
        loss = FusedFocalLoss(**given)
    elif not isinstance(config, dict):
        raise TypeError(f'loss must be the config of a loss, a dict, or None, got {config!r}')
    else:
        defaults = FusedFocalLoss.spec.defaults
        beside = {n: v for n, v in given.items() if not (isinstance(v, Real) and v == defaults[n])}
        if beside:
            written = ', '.join(f'{name}={value!r}' for name, value in beside.items())
            raise ValueError(f'{kind} takes everything from loss={config!r}: write {written} there or nowhere')
        loss = MODELS.build(config)
    name = type(loss).__name__
    if not isinstance(loss, FusedLoss):
        raise TypeError(f"loss must be one of focal_plugin's (dict(type='FusedFocalLoss', ...)), got {name}")
    if loss.spec.family == 'rowwise':
        raise ValueError(
            f'{kind} needs a value of each class alone, {name} is a loss over a softmax: write '
            f"dict(type='ClassificationCost', weight=...)"
        )
    if loss.spec.statistics:
        raise ValueError(
            f"{kind} can't follow {name}, whose exponents change with what the head's own loss gathers in training: "
            f"write loss=dict(type='FusedFocalLoss', ...), which it starts as"
        )
    for parameter in loss.spec.defaults if binary else ():
        value = getattr(loss, parameter)
        if (isinstance(value, Tensor) and value.numel() != 1) or (isinstance(value, tuple) and len(value) != 1):
            raise ValueError(f'{kind} of masks has no classes: write one number, {parameter} has {len(value)}')
    return loss


def check_labels(scores: Tensor, labels: Tensor) -> None:
    arguments.canonical_pred(scores)
    canonical_tensor('labels', labels, device=scores.device)
    if scores.dim() != 2:
        raise ValueError(f'scores must be logits of shape (queries, classes), got {tuple(scores.shape)}')
    if labels.dtype not in INTEGERS:
        raise TypeError(f'labels must be integers, got {labels.dtype}: write labels.long()')
    if labels.dim() != 1:
        raise ValueError(f'labels must have the shape (objects,), got {tuple(labels.shape)}')
    classes = scores.size(1)
    if classes == 0 and len(labels) > 0:
        raise ValueError(f'scores of shape {tuple(scores.shape)} have no classes for {len(labels)} labels')
    if labels.device.type == 'cpu':  # elsewhere looking would synchronise: such an object's costs are NaN
        bad = labels[(labels < 0) | (labels >= classes)]
        if len(bad) > 0:
            raise ValueError(
                f'label {bad[0].item()} is outside [0, {classes}): the scores have {classes} classes, so num_classes does '
                f'not match the annotations'
            )


def check_masks(pred: Tensor, masks: Tensor) -> None:
    arguments.canonical_pred(pred)
    canonical_tensor('masks', masks, device=pred.device)
    # As in mmdet one of the two may be flat already, or have a channel more.
    fit = min(pred.dim(), masks.dim()) > 1 and pred.shape[1:].numel() == masks.shape[1:].numel()
    if not fit or (pred.dim() == masks.dim() and pred.shape[1:] != masks.shape[1:]):
        raise ValueError(
            f'masks of shape {tuple(masks.shape)} do not fit pred of shape {tuple(pred.shape)}: write (objects, H, W) for '
            f'(queries, H, W), or (objects, n) for (queries, n)'
        )
