"""Equalized focal loss as an MMEngine component."""

from __future__ import annotations

import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from torch import Tensor

from focal_plugin.compatibility import outside_of_graphs
from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import equalized_focal
from focal_plugin.math.spec import REQUIRED, Parameter
from focal_plugin.tracing import recomputes


@MODELS.register_module()
class FusedEqualizedFocalLoss(FusedLoss):
    """Focal loss whose exponent rises for classes that get few gradients of positives, for long-tailed data.

    The absolute gradients by the logits are summed inside the backward kernel, in training only, with weight and
    avg_factor but without the upstream gradient (the loss scale of AMP). When the backward of an iteration ends, its sums
    are added up over the processes and change the ratios for the next. A buffer that checkpoints hold keeps them.
    Logits of another number of classes than num_classes are a ValueError.
    """

    spec = equalized_focal.SPEC
    extra_parameters = (Parameter('num_classes', REQUIRED, 'Number of classes of the head', low=1, whole=True),)
    withheld = ('ratio',)
    num_classes: int
    gradients: Tensor
    ratio: Tensor
    _gathered: Tensor

    def __init__(self, *args, **given) -> None:
        super().__init__(*args, **given)
        # Of positives (row 0) and of negatives: all that was, and what the running backward has gathered.
        self.register_buffer('gradients', torch.zeros(2, self.num_classes, dtype=torch.float64))
        self.register_buffer('_gathered', torch.zeros(2, self.num_classes, dtype=torch.float64), persistent=False)
        self.register_buffer('ratio', torch.ones(self.num_classes), persistent=False)
        self._is_queued = self._is_put_off = False
        self.register_load_state_dict_post_hook(_set_ratio)

    # A function of its own: a break in a graph that is inside of every loss's would be in all of theirs.
    forward = outside_of_graphs(FusedLoss.forward)

    def run(self, pred, *arguments, **changed) -> Tensor:
        """The loss; in training its backward changes the ratios, and so the next iteration's loss."""
        if pred.size(-1) != self.num_classes:
            raise ValueError(
                f'FusedEqualizedFocalLoss was built with num_classes={self.num_classes}, the logits have '
                f'{pred.size(-1)} classes: give the loss the num_classes of the head'
            )
        if self.gradients.device != pred.device:
            raise ValueError(
                f'FusedEqualizedFocalLoss is on {self.gradients.device}, the logits on {pred.device}: write '
                f'loss.to(pred.device)'
            )
        counts = self.training and torch.is_grad_enabled() and pred.requires_grad
        again = recomputes()
        if self._is_queued and not again:  # that backward failed, and its update never came
            self._is_queued = False
            self._gathered.zero_()
        if self._is_put_off and not again:
            self._update()
        loss = super().run(pred, *arguments, statistics=self._gathered if counts else None, **changed)
        if counts:
            loss.register_hook(self._put_off if again else self._queue)
        return loss

    def _put_off(self, _: Tensor) -> None:
        """Called in a backward inside another: other levels have yet to be recomputed, with the ratios as they were."""
        self._is_put_off = True

    def _queue(self, _: Tensor) -> None:
        """Called inside a backward: lets it end with the update, which every process reaches."""
        if not self._is_queued:
            self._is_queued = True
            torch.autograd.Variable._execution_engine.queue_callback(self._update)

    def _update(self) -> None:
        self._is_queued = self._is_put_off = False
        gathered = self._gathered.clone()
        self._gathered.zero_()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(gathered)
        # One NaN would stay in the sums for good.
        self.gradients += gathered.nan_to_num(nan=0.0, posinf=0.0)
        _set_ratio(self)


def _set_ratio(loss: FusedEqualizedFocalLoss, _=None) -> None:
    """The ratios of the gradients so far. A function: the hook that follows a checkpoint is pickled with the loss."""
    positive, negative = loss.gradients
    loss.ratio.copy_((positive / negative).clamp(0, 1).nan_to_num(nan=1.0))
