"""What the registry classes have in common."""

from torch import Tensor, nn

from focal_plugin import functional
from focal_plugin.arguments import REDUCTIONS


class FusedLoss(nn.Module):
    """Base of the registry classes: reduction_override, loss_weight, vectors of parameters. The hook looks for it."""

    use_sigmoid: bool
    reduction: str
    loss_weight: float
    activated: bool = False

    def set_common(self, use_sigmoid: bool, reduction: str, loss_weight: float) -> None:
        """Checks and keeps the arguments that every loss has."""
        if use_sigmoid is not True:
            raise ValueError(
                f'{type(self).__name__} is a sigmoid loss: write use_sigmoid=True, got {use_sigmoid!r}. (Heads read '
                f'use_sigmoid to choose between num_classes channels with a sigmoid and num_classes + 1 with a softmax.)'
            )
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction must be one of {REDUCTIONS}, got {reduction!r}')
        self.use_sigmoid, self.reduction, self.loss_weight = use_sigmoid, reduction, loss_weight

    def set_parameter(self, name: str, value) -> None:
        """Keeps a parameter: a number as an attribute, a vector as a buffer that checkpoints don't hold."""
        if isinstance(value, Tensor):
            self.register_buffer(name, value, persistent=False)
        else:
            setattr(self, name, value)

    def run(self, spec, parameters, pred, target, weight, avg_factor, reduction_override) -> Tensor:
        if reduction_override not in (None, *REDUCTIONS):
            raise ValueError(f'reduction_override must be None or one of {REDUCTIONS}, got {reduction_override!r}')
        return functional.apply(
            spec,
            parameters,
            pred,
            target,
            weight,
            reduction=reduction_override or self.reduction,
            avg_factor=avg_factor,
            activated=self.activated,
            loss_weight=self.loss_weight,
        )
