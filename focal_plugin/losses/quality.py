"""What the losses that sum the qualities of a row have in common with mmdet's QualityFocalLoss."""

from __future__ import annotations

from mmdet.models.losses import QualityFocalLoss
from torch import Tensor

from focal_plugin.axes import classes_last
from focal_plugin.losses.base import FusedLoss


class FusedQualityLoss(FusedLoss, QualityFocalLoss):
    """Base of the losses with one value per row that stand in QualityFocalLoss's place: its axes are theirs."""

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss, summed over dimension 1, the classes, as QualityFocalLoss sums it.

        Args:
            pred (Tensor): Logits with shape (N, C), or (N, C, ...), with any strides.
            target (Tensor or tuple[Tensor]): (labels, scores) with shape (N, ...) each, background C; dense values in
                [0, 1] of pred's shape; or labels alone.
            weight (Tensor, optional): One a row, with shape (N, ...); or one per element, of pred's shape.
            avg_factor (float or Tensor, optional): What the sum is divided by, instead of the number of rows.
            reduction_override (str, optional): Replaces reduction for this call; 'none' gives one number per row.

        Returns:
            Tensor: The loss; float32 where it is reduced.
        """
        return self.run(*classes_last(pred, target, weight), avg_factor, reduction_override)
