"""Gaussian focal loss as an MMEngine component."""

from __future__ import annotations

from mmdet.models.losses import GaussianFocalLoss
from mmdet.registry import MODELS
from torch import Tensor

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import gaussian_focal


@MODELS.register_module()
class FusedGaussianFocalLoss(FusedLoss, GaussianFocalLoss):
    """mmdet's GaussianFocalLoss, the loss of heatmaps, as one fused kernel."""

    spec = gaussian_focal.SPEC
    labelled = False
    replaces = 'GaussianFocalLoss'

    def forward(  # type: ignore[override]
        self,
        pred: Tensor,
        target: Tensor,
        pos_inds: Tensor | None = None,
        pos_labels: Tensor | None = None,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            pred (Tensor): Probabilities of any shape; logits with from_logits.
            target (Tensor): Heatmap of pred's shape, 1 at an object's centre.
            pos_inds (Tensor, optional): Rows of a pred of shape (N, C) that are positives, with shape (M,). The positives
                then are these instead of the ones in target, and 'mean' is theirs plus that of the N * C negatives.
            pos_labels (Tensor, optional): Their classes, with shape (M,).
            weight (Tensor, optional): One for each row, or with pred's number of dimensions, each of size 1 or pred's; as in
                mmdet not used with pos_inds.
            avg_factor (float or Tensor, optional): What the sum is divided by, instead of the number of elements.
            reduction_override (str, optional): Replaces reduction for this call.

        Returns:
            Tensor: The loss; float32 where it is reduced.

        Raises:
            ValueError: pos_inds without pos_labels, or with reduction 'none', in which the two sums have no common shape.
        """
        if pos_inds is None:
            return self.run(pred, target, weight, avg_factor, reduction_override)
        if pos_labels is None:
            raise ValueError('pos_inds needs pos_labels, the class of each')

        def loss(pred: Tensor, target: Tensor, **changed) -> Tensor:
            return self.run(pred, target, None, avg_factor, reduction_override, **changed)

        reduction = reduction_override or self.reduction
        return gaussian_focal.of_named_positives(loss, pred, target, pos_inds, pos_labels, reduction)
