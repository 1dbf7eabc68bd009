"""Dense heads whose loss reads the maps of logits where they lie."""

from torch import Tensor

from focal_plugin.losses.base import FusedLoss
from focal_plugin.rows import Map


class ZeroCopyMixin:
    """Lets a head of mmdet's hand its class logits to the loss without copying them.

    The stock head permutes and reshapes each level's logits (B, A * C, H, W) into rows, a copy, and autograd copies their
    gradient back. With this class before it, the loss reads each map once, and its gradient comes back as a map. Losses and
    gradients are the stock head's to rounding; everything else, parameters and checkpoints included, is the stock head's.

    Raises:
        TypeError: loss_cls is not one of this package's losses: others need the rows copied.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.loss_cls, FusedLoss):
            stock = next(base.__name__ for base in type(self).__mro__ if base.__module__.startswith('mmdet.'))
            raise TypeError(
                f'{type(self).__name__} needs a loss that reads maps where they lie, got '
                f"{type(self.loss_cls).__name__}: write loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, ...), or "
                f'go back to {stock}'
            )

    def loss_by_feat(self, cls_scores: list[Tensor], *args, **kwargs) -> dict:
        """The stock head's losses.

        Args:
            cls_scores (list[Tensor]): Class logits of each level with shape (B, A * C, H, W).
            *args, **kwargs: The stock head's other arguments.

        Returns:
            dict[str, Tensor or list[Tensor]]: The stock head's losses.
        """
        return super().loss_by_feat([Map(score) for score in cls_scores], *args, **kwargs)
