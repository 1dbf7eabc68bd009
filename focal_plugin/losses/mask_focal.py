"""Sigmoid focal loss of masks as an MMEngine component."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor

from focal_plugin import arguments, functional
from focal_plugin.losses.base import FusedLoss


@MODELS.register_module()
class FusedMaskFocalLoss(FusedLoss):
    """Sigmoid focal loss of masks as one fused kernel: for the mask heads of Mask R-CNN, PointRend and their kin, which
    hand over (n, C, H, W) logits with labels, and in place of DiceLoss for SOLO, CondInst, RTMDet-Ins and QueryInst, which
    hand over one mask an instance.

    MaskFormer and Mask2Former hand over flat pixels: FusedFocalLoss is theirs.
    """

    spec = functional.MASKS
    labelled = False  # its labels pick channels

    def forward(  # type: ignore[override]
        self,
        pred: Tensor,
        target: Tensor,
        labels: Tensor | None = None,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            pred (Tensor): Logits with shape (n, C, H, W) or (n, C, P), of which each instance's own channel is read; or
                (n, H, W) or (n, P).
            target (Tensor): Masks with shape (n, H, W) or (n, P), hard or soft.
            labels (Tensor, optional): The instances' classes with shape (n,), where pred has channels to pick from.
            weight (Tensor, optional): With shape (n,), or that of the masks.
            avg_factor (float or Tensor, optional): What the sum over the instances is divided by, instead of n.
            reduction_override (str, optional): Replaces reduction for this call; 'none' gives one number per instance.

        Returns:
            Tensor: The loss; float32 where it is reduced.
        """
        pred = arguments.canonical_pred(pred)
        pred, target, channel, weight = arguments.canonical_masks(pred, target, labels, weight)
        return self.run(
            pred, target, weight, avg_factor, reduction_override, channel=channel, part=1 / max(pred.size(-1), 1)
        )
