"""Two-stage Deformable DETR for many classes."""

from __future__ import annotations

from mmdet.models.detectors import DeformableDETR
from mmdet.registry import MODELS
from torch import Tensor

from focal_plugin.detectors.query_selection import QuerySelectionMixin


@MODELS.register_module()
class FusedDeformableDETR(QuerySelectionMixin, DeformableDETR):
    """Two-stage DeformableDETR (arXiv 2010.04159) that predicts without the class logits (B, tokens, C) of its encoder.

    Only predictions are made so, and they are those of mmdet's DeformableDETR to rounding. In training it is that detector
    unchanged: its loss of the proposals is a sum over every logit of every token, so that it needs them all, unlike DINO's,
    which is of the selected ones.

    Args:
        chunk (float): The most MiB of logits to hold at once while queries are selected; one token's are held in any case.
        *args, **kwargs: DeformableDETR's.

    Raises:
        ValueError: chunk is not positive and finite, or as_two_stage is False: then there are no such logits.
        TypeError: chunk is not a number.
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
        if self.training:
            return super().pre_decoder(memory, memory_mask, spatial_shapes)
        # The encoder is trained to tell objects from the background by the logits of the first class alone.
        _, boxes = self._selected(memory, memory_mask, spatial_shapes, classes=slice(1))
        boxes = boxes.detach()
        queries = self.pos_trans_norm(self.pos_trans_fc(self.get_proposal_pos_embed(boxes)))
        query_pos, query = queries.chunk(2, dim=2)
        return dict(query=query, query_pos=query_pos, memory=memory, reference_points=boxes.sigmoid()), {}
