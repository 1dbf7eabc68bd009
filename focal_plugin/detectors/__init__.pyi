"""mmdet's detectors that select queries without the logits of every token; importing this package registers them.

Written by python -m tools.maintain.stubs.
"""

from abc import ABCMeta

from mmdet.models.detectors.deformable_detr import DeformableDETR
from mmdet.models.detectors.dino import DINO
from torch import Tensor

from focal_plugin.detectors.query_selection import QuerySelectionMixin

__all__ = ['FusedDINO', 'FusedDeformableDETR']

class FusedDeformableDETR(QuerySelectionMixin, DeformableDETR, metaclass=ABCMeta):
    """Two-stage DeformableDETR (arXiv 2010.04159) that never holds the class logits (B, tokens, C) of its encoder's tokens.

    Queries, losses, gradients and predictions are those of mmdet's DeformableDETR to rounding: tokens whose scores differ by
    no more may change places.

    In training the loss of the proposals is a sum over every logit of every token. It is computed together with the class
    branch, a chunk of classes at a time, where loss_cls is one of this package's sigmoid losses and the proposals are
    matched by mmdet's head and HungarianAssigner, by FocalLossCost, BBoxL1Cost and IoUCost or by FusedFocalLossCost; else,
    as with a head of your own that matches otherwise, training is that of DeformableDETR, which holds the logits.

    Args:
        chunk (float): The most MiB of logits to hold at once, in training together with their gradient; one token's or one
            class's are held in any case.
        *args, **kwargs: DeformableDETR's.

    Raises:
        ValueError: chunk is not positive and finite, or as_two_stage is False: then there are no such logits.
        TypeError: chunk is not a number; in training, the class branch is no plain nn.Linear, or has hooks.
    """
    def pre_decoder(self, memory: Tensor, memory_mask: Tensor | None, spatial_shapes: Tensor) -> tuple[dict, dict]:
        """The decoder's inputs from the encoder's output.

        Args:
            memory (Tensor): The encoder's output with shape (B, tokens, D).
            memory_mask (Tensor, optional): True at padding, with shape (B, tokens).
            spatial_shapes (Tensor): Height and width of each level, with shape (levels, 2).

        Returns:
            tuple[dict, dict]: What forward_decoder takes, and in training what the head's loss takes.
        """

class FusedDINO(QuerySelectionMixin, DINO, metaclass=ABCMeta):
    """DINO (arXiv 2203.03605) that never makes the class logits (B, tokens, C) of its encoder's tokens.

    Queries, losses, gradients and predictions are those of mmdet's DINO to rounding: tokens whose scores differ by no more
    may change places where the matrix product rounds differently for fewer rows.

    Args:
        chunk (float): The most MiB of logits to hold at once while queries are selected; one token's are held in any case.
        *args, **kwargs: DINO's.

    Raises:
        ValueError: chunk is not positive and finite.
        TypeError: chunk is not a number.
    """
    def pre_decoder(
        self, memory: Tensor, memory_mask: Tensor | None, spatial_shapes: Tensor, batch_data_samples: list | None = None
    ) -> tuple[dict, dict]:
        """The decoder's inputs from the encoder's output.

        Args:
            memory (Tensor): The encoder's output with shape (B, tokens, D).
            memory_mask (Tensor, optional): True at padding, with shape (B, tokens).
            spatial_shapes (Tensor): Height and width of each level, with shape (levels, 2).
            batch_data_samples (list[DetDataSample], optional): The objects, from which training makes denoising queries.

        Returns:
            tuple[dict, dict]: What forward_decoder takes, and in training what the head's loss takes.
        """
