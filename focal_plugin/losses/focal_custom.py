"""Sigmoid focal loss for box heads as an MMEngine component."""

import warnings

import torch
from mmdet.models.losses import FocalCustomLoss
from mmdet.registry import MODELS
from torch import Tensor

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import focal
from focal_plugin.math.spec import Parameter


@MODELS.register_module()
class FusedFocalCustomLoss(FusedLoss, FocalCustomLoss):
    """mmdet's FocalCustomLoss, the sigmoid focal loss for the box heads of Faster and Cascade R-CNN, as one fused kernel.

    It tells the head to have num_classes channels and none for the background, to take the sigmoid at test time, and how
    to measure its accuracy; with FusedFocalLoss a box head keeps num_classes + 1 channels and a softmax. num_classes is
    the head's.

    mmdet's box heads leave out the last column of the scores at test time, the background's. mmdet's FocalCustomLoss gives
    them none, so that the last class is never found and boxes of one class get the scores of another; this one gives them
    1 less the greatest of the others, by which Soft Teacher weighs the negatives of photos without annotations.
    """

    spec = focal.SPEC
    replaces = 'FocalCustomLoss'
    extra_parameters = (
        Parameter('num_classes', -1, 'Number of classes of the head; must be given', low=-1, whole=True),
    )
    num_classes: int
    activated: bool
    is_of_boxes = False
    custom_cls_channels = custom_activation = custom_accuracy = True

    def __init__(self, *args, **given) -> None:
        super().__init__(*args, **given)
        if self.num_classes == -1:
            raise TypeError('FusedFocalCustomLoss needs num_classes, that of the head')
        if self.activated:
            warnings.warn('FusedFocalCustomLoss takes logits: as in mmdet, activated=True has no effect', stacklevel=2)
            self.activated = False

    def get_cls_channels(self, num_classes: int) -> int:
        """The number of class channels for a box head of num_classes, which must be this loss's."""
        if num_classes != self.num_classes:
            raise ValueError(f'the head has num_classes={num_classes}, its loss num_classes={self.num_classes}')
        self.is_of_boxes = True  # dense heads don't ask
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """The probabilities (N, num_classes) of logits (N, num_classes); for a box head (N, num_classes + 1)."""
        scores = super().get_activation(cls_score)
        return torch.cat([scores, 1 - scores.amax(dim=1, keepdim=True)], dim=1) if self.is_of_boxes else scores
