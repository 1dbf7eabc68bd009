"""The focal loss of mmsegmentation's decode heads: maps of logits (B, C, H, W) with a label per pixel, read where they lie.

It needs neither mmseg nor mmdet; mmengine's root registry holds it, so that a config of any scope finds its plain name.
"""

from __future__ import annotations
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from focal_plugin import arguments, functional
from focal_plugin.math import SPECS, focal
from focal_plugin.math.spec import ALPHA, GAMMA, Parameter
from focal_plugin.parameters import check_parameter
from focal_plugin.tensors import canonical_tensor
from focal_plugin.tracing import may_look

CLASS_WEIGHT = Parameter('class_weight', None, "Factor of each class's channel", sequence=True)
# alpha is what positives and negatives are multiplied by: two numbers, or (2, C) with class_weight in it.
_SPEC = replace(SPECS['focal'], pack=lambda gamma, alpha: (gamma, *alpha))


@MODELS.register_module()
class FusedSegFocalLoss(nn.Module):
    """mmseg's FocalLoss as one fused kernel, with gamma per class too.

    Nothing of the logits' size is made but the gradient: no rows, no one-hot of the labels. Each channel is a binary
    problem; with p = sigmoid(x) and p_t = p in the channel of a pixel's label, 1 - p in the others:

        loss = class_weight alpha_t (1 - p_t)^gamma (-log p_t)

    Args:
        use_sigmoid (bool): Must be True; mmseg's cross-entropy, from which a config may inherit it, has False. Defaults to
            True.
        gamma (float or list[float]): Focusing exponent; at least 0, or one per class. Defaults to 2.0.
        alpha (float or list[float] or None): Weight of the positives; in [0, 1], or one per class; None or a negative
            number: none. Defaults to 0.5.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        class_weight (list[float] or None): Factor of each class's channel, for its positives and negatives, at least 0.
            Defaults to None.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        loss_name (str): Name in the log; what does not begin with 'loss_' is not trained. Defaults to 'loss_focal'.

    Raises:
        ValueError: An argument outside its range; use_sigmoid=False.
        TypeError: An argument of another type.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float | Sequence[float] | Tensor = 2.0,
        alpha: float | Sequence[float] | Tensor | None = 0.5,
        reduction: str = 'mean',
        class_weight: Sequence[float] | Tensor | None = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_focal',
    ) -> None:
        super().__init__()
        if use_sigmoid is not True:
            raise ValueError(
                f'FusedSegFocalLoss is a sigmoid loss: write use_sigmoid=True, got {use_sigmoid!r} (a config inherits it '
                f'from the loss before; _delete_=True leaves out what it inherits)'
            )
        arguments.check_reduction(reduction, None)
        if not isinstance(loss_name, str):
            raise TypeError(f'loss_name must be a string, got {loss_name!r}')
        self.use_sigmoid, self.reduction = use_sigmoid, reduction
        self.loss_weight = arguments.canonical_loss_weight(loss_weight)
        # Its numbers are read at every call, for which a GPU's tensor would wait.
        self.class_weight = class_weight.tolist() if isinstance(class_weight, Tensor) else class_weight
        self.gamma, self.alpha, self._loss_name = gamma, alpha, loss_name
        _parameters(gamma, alpha, class_weight)  # refuses what is none

    @property
    def loss_name(self) -> str:
        """The name under which decode heads log the loss."""
        return self._loss_name

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = 255,
    ) -> Tensor:
        """The loss.

        Args:
            pred (Tensor): Logits with shape (B, C, H, W), or any shape (B, C, ...) and strides; (N, C) too.
            target (Tensor): Labels with shape (B, H, W), class c in [0, C), C for none; with C = 1 the channel's label is 1
                and 0 none, as mmseg has it. Or dense values in [0, 1] of pred's shape.
            weight (Tensor, optional): One per pixel, with shape (B, H, W) or flat; one per element, with pred's number of
                dimensions, each of size 1 or pred's; or of rows (B * H * W, C), (B * H * W, 1) or (1, C).
            avg_factor (float or Tensor, optional): What the sum is divided by, instead of the number of elements.
            reduction_override (str, optional): Replaces reduction for this call.
            ignore_index (int, optional): Pixels with this label give no loss and no gradient; they count in the mean.
                Dense targets have none.

        Returns:
            Tensor: The loss; float32 where it is reduced, of pred's shape and dtype where it is not.

        Raises:
            ValueError: Shapes that do not fit; on a CPU a label outside [0, C] (on a GPU it makes its pixel's loss NaN).
            TypeError: A wrong type or dtype.
        """
        reduction = self.reduction if reduction_override is None else arguments.checked_override(reduction_override)
        pred = arguments.canonical_pred(pred)
        target, ignore_index = _target(pred, target, ignore_index)
        self._check_classes(pred)
        loss = functional.apply(
            _SPEC,
            _parameters(self.gamma, self.alpha, self.class_weight),
            pred.movedim(1, -1),
            target,
            None if weight is None else _weight(pred, weight),
            reduction=reduction,
            avg_factor=avg_factor,
            ignore_index=ignore_index,
            loss_weight=self.loss_weight,
        )
        return loss.movedim(-1, 1) if reduction == 'none' else loss

    def _check_classes(self, pred: Tensor) -> None:
        """Whether what is given per class has as many numbers as pred has channels."""
        for name in ('gamma', 'alpha', 'class_weight'):
            given, classes = getattr(self, name), pred.size(1)
            count = (
                given.numel() if isinstance(given, Tensor) else len(given) if isinstance(given, Sequence) else classes
            )
            if count != classes and not (isinstance(given, Tensor) and given.dim() == 0):
                raise ValueError(
                    f'{name} holds {count} numbers for pred of shape {tuple(pred.shape)} with {classes} classes: write one '
                    f'per class'
                )

    def extra_repr(self) -> str:
        names = ('gamma', 'alpha', 'class_weight', 'reduction', 'loss_weight', 'loss_name')
        return ', '.join(f'{name}={getattr(self, name)!r}' for name in names)


def _parameters(
    gamma: float | Sequence[float] | Tensor,
    alpha: float | Sequence[float] | Tensor | None,
    class_weight: Sequence[float] | Tensor | None,
) -> dict[str, Any]:
    """gamma, and alpha by target, with class_weight in it."""
    factors = focal.by_target(check_parameter(ALPHA, alpha))
    if class_weight is not None:
        of_classes = torch.tensor(check_parameter(CLASS_WEIGHT, class_weight), dtype=torch.float64, device='cpu')
        factors = tuple(each * of_classes for each in factors)
    if any(isinstance(each, Tensor) for each in factors):
        factors = torch.stack([torch.as_tensor(each) for each in factors])
    return {'gamma': check_parameter(GAMMA, gamma), 'alpha': factors}


def _target(pred: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, int | None]:
    """A target with the classes last, for which 0 is the channel of one class, and the label to ignore in it."""
    target = canonical_tensor('target', target)
    if pred.dim() < 2:
        raise ValueError(f'pred must have the shape (B, C, H, W), or any (B, C, ...), got {tuple(pred.shape)}')
    if target.shape == pred.shape:
        return target.movedim(1, -1), None
    pixels = (pred.size(0), *pred.shape[2:])
    if target.shape != pixels:
        raise ValueError(
            f'target of shape {tuple(target.shape)} does not fit pred of shape {tuple(pred.shape)}: write labels of shape '
            f'{pixels} (target.squeeze(1) where a dimension of size 1 is left), or dense values of the shape of pred'
        )
    if pred.size(1) > 1 or target.is_floating_point() or target.dtype == torch.bool:
        return target, ignore_index
    # The functions' channel of one class is that of label 0; other labels stay, to be ignored or refused by their number.
    is_other = (target != 0) & (target != 1)
    if may_look(target):
        others = target[is_other]
        bad = others if ignore_index is None else others[others != ignore_index]
        if bad.numel() > 0:
            raise ValueError(
                f'label {int(bad[0])} is outside [0, 1]: of one channel the label is 1, 0 for none. To leave such pixels '
                f'out write ignore_index={int(bad[0])}, an argument of the decode head'
            )
    exchanged = torch.where(is_other, target, 1 - target)
    return exchanged, 1 - ignore_index if ignore_index in (0, 1) else ignore_index


def _weight(pred: Tensor, weight: Tensor) -> Tensor:
    """A weight as the functions take it: of the pixels' shape, or with the classes last."""
    weight, pixels, classes = canonical_tensor('weight', weight), (pred.size(0), *pred.shape[2:]), pred.size(1)
    rows = math.prod(pixels)
    if weight.shape in (pixels, (rows,)):
        return weight.reshape(pixels)
    if weight.dim() == pred.dim() and all(one in (1, all_) for one, all_ in zip(weight.shape, pred.shape)):
        return weight.movedim(1, -1)
    if weight.dim() == 2 and weight.size(0) in (1, rows) and weight.size(1) in (1, classes):
        return weight.reshape(*(pixels if weight.size(0) == rows else [1] * len(pixels)), weight.size(1))
    raise ValueError(
        f'weight of shape {tuple(weight.shape)} does not fit pred of shape {tuple(pred.shape)}: write one number per pixel, '
        f'{pixels} or ({rows},), or as many dimensions as pred has, each of size 1 or that of pred'
    )
