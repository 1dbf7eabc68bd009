"""Queries selected among the encoder's tokens, a chunk of class logits at a time."""

from __future__ import annotations
from typing import Any

import torch
from torch import Tensor, nn

from focal_plugin.parameters import mebibytes


class QuerySelectionMixin:
    """Lets a two-stage detector of DETR's kin select its queries without the class logits of every token.

    The stock detector makes logits (B, tokens, C), by which it takes the num_queries best tokens of each image. With this
    class before it, the tokens' scores are found from a chunk of logits at a time, without gradients, and the branches of
    the head then run on the selected tokens alone. Parameters, checkpoints and arguments are the stock detector's.

    The class branch is called as a module, on chunks of tokens: hooks and adapters (LoRA) take part in each call. It may be
    any module that treats each token alone; one that draws random numbers, as dropout does, draws anew in each call.

    Args:
        chunk (float): The most MiB of logits to hold at once; one token's are held in any case.
        *args, **kwargs: The stock detector's.

    Raises:
        ValueError: chunk is not positive and finite, or as_two_stage is False: there are no tokens to select.
        TypeError: chunk is not a number.
    """

    as_two_stage: bool
    bbox_head: Any  # mmdet's, which carries no types
    decoder: Any
    num_queries: int

    def __init__(self, *args, chunk: float = 64, **kwargs) -> None:
        chunk = mebibytes('chunk', chunk)
        super().__init__(*args, **kwargs)
        if not self.as_two_stage:
            stock = next(base.__name__ for base in type(self).__mro__ if base.__module__.startswith('mmdet.'))
            raise ValueError(
                f'{type(self).__name__} selects queries among the tokens of its encoder, got as_two_stage=False: write '
                f'as_two_stage=True, or go back to {stock}, which makes no logits of them either'
            )
        self.chunk = chunk

    def _selected(
        self, memory: Tensor, memory_mask: Tensor | None, spatial_shapes: Tensor, classes: slice
    ) -> tuple[Tensor, Tensor]:
        """The selected tokens of each image, the best first, and their boxes before the sigmoid.

        Args:
            memory: the encoder's output (B, tokens, D).
            memory_mask: True at padding (B, tokens).
            spatial_shapes: height and width of each level (levels, 2).
            classes: the classes of whose logits the greatest is a token's score.

        Returns:
            (B, num_queries, D) and (B, num_queries, 4).
        """
        tokens, proposals = self.gen_encoder_output_proposals(  # type: ignore[attr-defined]  # the detector's
            memory, memory_mask, spatial_shapes
        )
        indices = self._scores(tokens, classes).topk(self.num_queries, dim=1)[1].unsqueeze(-1)
        tokens, proposals = (each.take_along_dim(indices, dim=1) for each in (tokens, proposals))
        return tokens, self.bbox_head.reg_branches[self.decoder.num_layers](tokens) + proposals

    def _scores(self, tokens: Tensor, classes: slice) -> Tensor:
        """The greatest logit of each token (B, tokens), without a gradient."""
        token_bytes = self.bbox_head.cls_out_channels * tokens.element_size()
        chunks = tokens.flatten(0, 1).split(max(1, int(self.chunk * 2**20 / token_bytes)))
        # Detached rather than under no_grad: there autocast, in torch 2.1 for one, caches the half-precision weight without
        # its graph, and the selected tokens' logits, which take it from the cache, would give the weight no gradient.
        scores = [self._class_branch(chunk).detach()[:, classes].amax(-1) for chunk in chunks]
        return torch.cat(scores).view(tokens.shape[:2])

    @property
    def _class_branch(self) -> nn.Module:
        return self.bbox_head.cls_branches[self.decoder.num_layers]
