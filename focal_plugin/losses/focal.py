"""Sigmoid focal loss as an MMEngine component."""

from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS
from torch import Tensor, nn

from focal_plugin import arguments
from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import focal


@MODELS.register_module()
class FusedFocalLoss(FusedLoss, FocalLoss):
    """mmdet's FocalLoss, arXiv 1708.02002, as one fused kernel: alpha_t (1 - p_t)^gamma (-log p_t).

    Args:
        use_sigmoid (bool): True; heads read it. Defaults to True.
        gamma (float or list[float]): Focusing exponent, at least 0, or one for each class. Defaults to 2.0.
        alpha (float or list[float] or None): Weight of the positives in [0, 1], or one for each class; None or a
            negative number: no alpha. Defaults to 0.25.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        activated (bool): The prediction holds probabilities instead of logits. Defaults to False.

    Raises:
        ValueError: An argument outside its range; a sigmoid loss with use_sigmoid=False.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma=focal.SPEC.defaults['gamma'],
        alpha=focal.SPEC.defaults['alpha'],
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.set_common(use_sigmoid, reduction, loss_weight)
        self.set_parameter('gamma', arguments.parameter('gamma', gamma, 0))
        self.set_parameter('alpha', arguments.alpha_parameter(alpha))
        self.activated = activated

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            pred (Tensor): Logits with shape (N, C), or any shape (..., C) and strides.
            target (Tensor): Labels with shape (N,), background C, or dense values in [0, 1] of pred's shape.
            weight (Tensor, optional): With shape (N,), (N, 1), (N, C), (N * C,) or (1, C).
            avg_factor (float or Tensor, optional): What the sum is divided by, instead of the number of elements.
            reduction_override (str, optional): Replaces reduction for this call.

        Returns:
            Tensor: The loss; float32 where it is reduced.
        """
        parameters = focal.pack(self.gamma, self.alpha)
        return self.run(focal.SPEC, parameters, pred, target, weight, avg_factor, reduction_override)
