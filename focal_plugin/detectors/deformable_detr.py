"""Two-stage Deformable DETR for many classes."""

from __future__ import annotations
from typing import Any

from mmcv.cnn import Linear
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.models.detectors import DeformableDETR
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import BBoxL1Cost, FocalLossCost, IoUCost
from mmdet.registry import MODELS
from torch import Tensor, nn

from focal_plugin.cut import has_hooks
from focal_plugin.detectors.cut_tokens import TokenLogits
from focal_plugin.detectors.query_selection import QuerySelectionMixin
from focal_plugin.losses.base import FusedLoss
from focal_plugin.match_costs import FusedFocalLossCost

_OF_ONE_CLASS = (BBoxL1Cost, FocalLossCost, FusedFocalLossCost, IoUCost)
"""Costs that look at the logits of an object's own class alone, or at none."""
_MATCHING = ('loss_by_feat', 'loss_by_feat_single', 'get_targets', '_get_targets_single')
"""The methods in which mmdet's head makes the proposals' objects all of the first class, and has them matched."""


@MODELS.register_module()
class FusedDeformableDETR(QuerySelectionMixin, DeformableDETR):
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
        head_inputs = {}
        if not self.training:
            # The encoder is trained to tell objects from the background by the logits of the first class alone.
            _, boxes = self._selected(memory, memory_mask, spatial_shapes, classes=slice(1))
        elif not self._is_cut:
            return super().pre_decoder(memory, memory_mask, spatial_shapes)
        else:
            tokens, proposals = self.gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
            logits = self._cut_logits(tokens)
            best = logits.first.topk(self.num_queries, dim=1)[1]
            boxes = self.bbox_head.reg_branches[self.decoder.num_layers](tokens) + proposals
            head_inputs = dict(enc_outputs_class=logits, enc_outputs_coord=boxes.sigmoid())
            boxes = boxes.take_along_dim(best, dim=1)
        boxes = boxes.detach()
        queries = self.pos_trans_norm(self.pos_trans_fc(self.get_proposal_pos_embed(boxes)))
        query_pos, query = queries.chunk(2, dim=2)
        return dict(query=query, query_pos=query_pos, memory=memory, reference_points=boxes.sigmoid()), head_inputs

    @property
    def _is_cut(self) -> bool:
        """Whether loss and matching do without the logits of all tokens."""
        head, loss, costs = self.bbox_head, self.bbox_head.loss_cls, self._costs
        is_ours = isinstance(loss, FusedLoss) and loss.spec.family == 'elementwise'
        is_of_mmdet = _has(head, DeformableDETRHead, *_MATCHING) and _has(head.assigner, HungarianAssigner, 'assign')
        return is_ours and is_of_mmdet and bool(costs) and all(cost in _OF_ONE_CLASS for cost in costs)

    @property
    def _costs(self) -> set[type]:
        """Those of matching; none of an assigner that matches without."""
        return {type(cost) for cost in getattr(self.bbox_head.assigner, 'match_costs', ())}

    def _cut_logits(self, tokens: Tensor) -> TokenLogits:
        branch = self._class_branch
        if not isinstance(branch, nn.Linear) or type(branch) not in (nn.Linear, Linear) or has_hooks(branch):
            raise TypeError(
                f'FusedDeformableDETR computes the class branch of its tokens in the loss, so in training it must be an '
                f'nn.Linear without hooks, got {type(branch).__name__}: go back to DeformableDETR'
            )
        # mmdet's cost computes those of all columns that it is given, and knows no numbers per class.
        columns = 1 if FocalLossCost in self._costs else branch.out_features
        return TokenLogits(tokens, branch, int(self.chunk * 2**20), self.bbox_head.loss_cls.spec.scored, columns)


def _has(part: Any, kind: type, *methods: str) -> bool:
    """Whether these methods of a head or assigner, which may be wrapped, are those of a class of mmdet's."""
    return all(getattr(getattr(part, name, None), '__func__', None) is getattr(kind, name) for name in methods)
