"""The focal cost of matching as MMEngine components, for the match_costs of HungarianAssigner."""

from __future__ import annotations
from collections.abc import Sequence

import torch
from mmdet.models.task_modules.assigners import FocalLossCost
from mmdet.registry import TASK_UTILS
from torch import Tensor

from focal_plugin.match_costs import checks, evaluate
from focal_plugin.math import focal

_ALPHA, _GAMMA = focal.SPEC.defaults['alpha'], focal.SPEC.defaults['gamma']


@TASK_UTILS.register_module()
class FusedFocalLossCost(FocalLossCost):
    """mmdet's FocalLossCost, exact at every logit and without a copy of all queries by all classes; or the cost of any
    other loss of this package.

    The cost of a query for an object is what matching them changes in the loss of the object's class: the loss's value
    for a positive minus its value for a negative. Give it the dict of the head's loss_cls, and matching and loss stay
    together when the loss is swapped:

        loss_cls = dict(type='FusedVarifocalLoss', use_sigmoid=True, alpha=0.75, loss_weight=1.0)
        match_costs = [dict(type='FusedFocalLossCost', weight=2.0, loss=loss_cls), ...]

    For a loss of quality the positive has quality 1. FusedClassBalancedFocalLoss weights the positive by its class, the
    negative, which is background, by 1. Predictions are logits also where the loss is told that its head hands over
    probabilities (activated, from_logits). An infinite logit counts as 1e30, since the assignment takes no infinite cost.
    The arithmetic is float32 (float64 for float64 logits), under autocast too; the costs have no gradient.

    Args:
        alpha (float or Sequence[float], optional): Weight of the positives, one for all classes or one each; None: none.
        gamma (float or Sequence[float]): Focusing exponent, likewise.
        eps (float): Accepted for mmdet's configs; without effect, since no logarithm here needs it.
        binary_input (bool): Match masks, by the mean cost of their pixels, instead of labels.
        weight (float): Weight of the cost among the others of the assigner.
        loss (dict, optional): The config of a loss of this package, in place of the sigmoid focal loss of alpha and
            gamma. Its reduction and loss_weight have no effect.

    Raises:
        ValueError: a loss that gives no such cost (over a softmax, or with statistics of training), alpha or gamma beside
            loss, or vectors over the classes with binary_input; when called, shapes that do not fit, or a label outside
            [0, C) (on a GPU it makes the object's costs NaN).
        TypeError: a loss of another package, or a wrong dtype.
    """

    def __init__(
        self,
        alpha: float | Sequence[float] | None = _ALPHA,
        gamma: float | Sequence[float] = _GAMMA,
        eps: float = 1e-12,
        binary_input: bool = False,
        weight: float = 1.0,
        loss: dict | None = None,
    ) -> None:
        super().__init__(alpha, gamma, eps, binary_input, weight)
        self.loss = checks.built(type(self).__name__, loss, {'alpha': alpha, 'gamma': gamma}, binary_input)

    @torch.no_grad()
    def _focal_loss_cost(self, cls_pred: Tensor, gt_labels: Tensor) -> Tensor:
        """The costs (Q, G) of logits (Q, C) and labels (G,)."""
        checks.check_labels(cls_pred, gt_labels)
        return evaluate.of_labels(self.loss, cls_pred, gt_labels.long()).mul_(self.weight)

    @torch.no_grad()
    def _mask_focal_loss_cost(self, cls_pred: Tensor, gt_labels: Tensor) -> Tensor:
        """The costs (Q, G) of logits (Q, H, W) or (Q, n) and masks (G, H, W) or (G, n), hard or soft."""
        checks.check_masks(cls_pred, gt_labels)
        return evaluate.of_masks(self.loss, cls_pred, gt_labels).mul_(self.weight)


@TASK_UTILS.register_module()
class FusedBinaryFocalLossCost(FusedFocalLossCost):
    """FusedFocalLossCost of masks, for MaskFormer and Mask2Former: binary_input is True.

    mmdet's BinaryFocalLossCost is another cost, that of Grounding DINO's text tokens.

    Args:
        alpha (float, optional): Weight of the mask's inside; None: none.
        gamma (float): Focusing exponent.
        binary_input (bool): True.
        eps, weight, loss: As FusedFocalLossCost's.

    Raises:
        ValueError, TypeError: as FusedFocalLossCost; binary_input=False.
    """

    def __init__(
        self,
        alpha: float | None = _ALPHA,
        gamma: float = _GAMMA,
        eps: float = 1e-12,
        binary_input: bool = True,
        weight: float = 1.0,
        loss: dict | None = None,
    ) -> None:
        if not binary_input:
            raise ValueError(
                f'FusedBinaryFocalLossCost is for masks, got binary_input={binary_input!r}: write FusedFocalLossCost for '
                f'labels'
            )
        super().__init__(alpha, gamma, eps, True, weight, loss)
