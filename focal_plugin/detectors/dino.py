"""DINO for many classes."""

from __future__ import annotations

import torch
from mmdet.models.detectors import DINO
from mmdet.registry import MODELS
from torch import Tensor

from focal_plugin.detectors.query_selection import QuerySelectionMixin


@MODELS.register_module()
class FusedDINO(QuerySelectionMixin, DINO):
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
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: Tensor,
        batch_data_samples: list | None = None,
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
        tokens, boxes = self._selected(memory, memory_mask, spatial_shapes, classes=slice(None))
        query, references = self.query_embedding.weight.repeat(len(memory), 1, 1), boxes.detach()
        dn_mask, head_inputs = None, {}
        if self.training:
            dn_query, dn_boxes, dn_mask, dn_meta = self.dn_query_generator(batch_data_samples)
            query, references = torch.cat([dn_query, query], dim=1), torch.cat([dn_boxes, references], dim=1)
            head_inputs = dict(
                enc_outputs_class=self._class_branch(tokens), enc_outputs_coord=boxes.sigmoid(), dn_meta=dn_meta
            )
        decoder_inputs = dict(query=query, memory=memory, reference_points=references.sigmoid(), dn_mask=dn_mask)
        return decoder_inputs, head_inputs
