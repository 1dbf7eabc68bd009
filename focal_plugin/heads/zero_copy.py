"""Dense heads whose loss reads the maps of logits where they lie."""

from __future__ import annotations
from contextlib import AbstractContextManager, nullcontext
from typing import cast

from torch import Tensor, nn

from focal_plugin.compatibility import outside_of_graphs
from focal_plugin.cut import Cut, checked, checked_size, chunk_bytes, is_recording, recording
from focal_plugin.losses import CLASSES, FusedMaskFocalLoss
from focal_plugin.losses.base import FusedLoss
from focal_plugin.maps import Map
from focal_plugin.tracing import recomputes


class ZeroCopyMixin:
    """Lets a head of mmdet's hand its class logits to the loss without copying them.

    The stock head permutes and reshapes each level's logits (B, A * C, H, W) into rows, a copy, and autograd copies their
    gradient back. With this class before it, the loss reads each map once, and its gradient comes back as a map. Losses and
    gradients are the stock head's to rounding; everything else, parameters and checkpoints included, is the stock head's.
    A head of another make may ask nothing of its class logits that mmdet's do not ask: what would copy them is an error.

    With cut=True the head never has class logits in training at all: its class convolution and the loss are computed
    together, a chunk of output channels at a time, in the memory of one chunk at any number of classes. The loss of
    classes is then one number for all levels. At test time nothing changes.

    Args:
        *args, **kwargs: The stock head's arguments.
        cut (bool or float): Whether the class convolution is computed with its loss; a number is the MiB that a chunk may
            take, its logits and as much again for their gradient; True is 64 on a CPU and 128 on a GPU.

    Raises:
        TypeError: loss_cls is not one of this package's losses of classes: others need the rows copied; with cut, it needs
            whole rows, the class convolution is none that can be cut, the head has no use for it, or cut is no number.
        ValueError: its reduction is 'none', which needs as many numbers as the copy has; cut is no size.

    Attributes:
        class_convolution: the name of the module that computes the class logits, the last to do so.
        not_cut: why the head can't take cut=True, if it can't.
    """

    loss_cls: FusedLoss
    class_convolution: str = ''
    not_cut: str = ''

    def __init__(self, *args, cut: bool | float = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._cut = checked_size(cut)
        self._check_loss('loss_cls' if getattr(self, 'use_vfl', True) else 'loss_cls_fl', self.loss_cls)
        if hasattr(self, 'initial_loss_cls'):  # TOOD's first epochs
            self._check_loss('initial_loss_cls', self.initial_loss_cls)
        if self._cut:
            self._check_cut()

    def _check_loss(self, argument: str, loss_cls: nn.Module) -> None:
        stock = next(base.__name__ for base in type(self).__mro__ if base.__module__.startswith('mmdet.'))
        loss = type(loss_cls).__name__
        if not isinstance(loss_cls, FusedLoss) or isinstance(loss_cls, FusedMaskFocalLoss):
            fused = next((kind.__name__ for kind in CLASSES.values() if kind.replaces == loss), 'FusedFocalLoss')
            raise TypeError(
                f'{type(self).__name__} needs a loss of classes that reads maps where they lie, got {loss}: write '
                f"{argument}=dict(type='{fused}', use_sigmoid=True, ...), or go back to {stock}"
            )
        if loss_cls.reduction == 'none':
            raise ValueError(
                f"{type(self).__name__} never copies its logits, but its {loss} with reduction='none' would: write "
                f"{argument}=dict(reduction='mean', ...), or go back to {stock}"
            )

    def _check_cut(self) -> None:
        name = type(self).__name__
        if self.not_cut:
            raise TypeError(f'{name} takes no cut=True, because {self.not_cut}: write cut=False')
        if self.loss_cls.spec.family != 'elementwise':
            raise TypeError(
                f'{name} with cut=True computes some classes at a time, and {type(self.loss_cls).__name__} needs all of a '
                f'row: choose a sigmoid loss, or write cut=False'
            )
        if not self.class_convolution:
            raise TypeError(
                f'{name} does not say which of its modules is its class_convolution: name it in the class, or write '
                f'cut=False'
            )
        checked(self._class_convolution)

    def loss(self, *args, **kwargs) -> dict:
        """The stock head's losses of features; with cut, without class logits."""
        if self._cut:
            return self._cut_loss(*args, **kwargs)
        return super().loss(*args, **kwargs)  # type: ignore[misc]  # the head's

    def loss_and_predict(self, *args, **kwargs) -> tuple:
        """The stock head's losses and proposals, of the same class logits."""
        if self._cut:
            raise TypeError(
                f'{type(self).__name__} with cut=True has no class logits to make proposals of: write cut=False'
            )
        return super().loss_and_predict(*args, **kwargs)  # type: ignore[misc]  # the head's

    @outside_of_graphs  # a compiler would have to see through tensors that are not there
    def _cut_loss(self, *args, **kwargs) -> dict:
        with self._recording() as cut:
            losses = super().loss(*args, **kwargs)  # type: ignore[misc]  # the head's
        return cut.losses(losses)

    def forward(self, *args, **kwargs):
        """The stock head's outputs."""
        cuts = self._cut and recomputes() and not is_recording(self._class_convolution)
        with self._recording() if cuts else nullcontext():  # what is recomputed has no logits the second time either
            return super().forward(*args, **kwargs)  # type: ignore[misc]  # the head's

    def _recording(self) -> AbstractContextManager[Cut]:
        device = cast(Tensor, self._class_convolution.weight).device
        return recording(self._class_convolution, chunk_bytes(self._cut, device), self.loss_cls.spec.scored)

    @property
    def _class_convolution(self) -> nn.Module:
        return getattr(self, self.class_convolution)

    def loss_by_feat(self, cls_scores: list[Tensor], *args, **kwargs) -> dict:
        """The stock head's losses.

        Args:
            cls_scores (list[Tensor]): Class logits of each level with shape (B, A * C, H, W).
            *args, **kwargs: The stock head's other arguments.

        Returns:
            dict[str, Tensor or list[Tensor]]: The stock head's losses.
        """
        maps = [each if isinstance(each, Map) else Map(each, self.loss_cls.spec.scored) for each in cls_scores]
        return super().loss_by_feat(maps, *args, **kwargs)  # type: ignore[misc]  # the head's
