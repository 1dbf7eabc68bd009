"""The class branch of an encoder's tokens and its loss as one, so that their class logits are never held."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from focal_plugin.compatibility import autocast_dtype
from focal_plugin.deferred import Deferred, refuse
from focal_plugin.kernels.problem import Problem
from focal_plugin.ops import cut
from focal_plugin.rows import Levels, Rows

_OWNER = cut.Owner('a FusedDeformableDETR in training', 'go back to DeformableDETR')


class TokenLogits(Deferred):
    """What stands for the class logits (B, tokens, C) of an encoder's tokens: of them those of the first class are held.

    By these mmdet's Deformable DETR matches its proposals, whose objects are all of the first class; the loss is computed
    a chunk of classes at a time.

    Args:
        tokens: (B, tokens, D).
        branch: the layer that would make the logits.
        size: bytes of a chunk of logits and of their gradient.
        scored: the loss takes (labels, scores).
        columns: how often matching finds the first class, in the place of the others: a cost with numbers per class asks
            for as many logits.
    """

    description = 'the class logits of the tokens of a FusedDeformableDETR in training'
    remedy = 'mmdet does not use it, and it would need them all. Go back to DeformableDETR, or leave it out'

    def __init__(self, tokens: Tensor, branch: nn.Linear, size: int, scored: bool, columns: int) -> None:
        self.shape = torch.Size((*tokens.shape[:2], branch.out_features))
        bias = None if branch.bias is None else branch.bias[:1]
        self.first = nn.functional.linear(tokens, branch.weight[:1], bias).detach()
        self._levels, self._scored, self._columns = _Tokens(tokens, branch, size), scored, columns

    def size(self, dim: int) -> int:
        return self.shape[dim]

    def __getitem__(self, image: int) -> Tensor:
        """The logits of the first class of an image's tokens, (tokens, columns), which take the memory of one column."""
        if not isinstance(image, int):
            refuse(TokenLogits, f'__getitem__({image!r})')
        return self.first[image].expand(-1, self._columns)

    def reshape(self, *shape: int) -> Rows:
        if shape != (-1, self.shape[-1]):
            refuse(TokenLogits, f'reshape{shape}')
        return Rows(self._levels, self.shape[-1], self._scored)


class _Tokens(Levels):
    """Tokens as the features of one level, an image of one column each, and of their logits the shape alone."""

    are_held = False

    def __init__(self, tokens: Tensor, branch: nn.Linear, size: int) -> None:
        self.features = tokens.transpose(1, 2).unsqueeze(-1)
        self.branch, self.bytes = branch, size
        dtype = autocast_dtype(tokens.device) or tokens.dtype
        batch, _, *places = self.features.shape
        super().__init__([tokens.new_empty((), dtype=dtype).expand(batch, branch.out_features, *places)])

    def __add__(self, others: Levels) -> Levels:
        refuse(TokenLogits, 'cat')

    def detach(self) -> Levels:
        refuse(TokenLogits, 'detach')

    def picked(self, level: int, view: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        refuse(TokenLogits, '__getitem__ of rows')

    @property
    def requires_grad(self) -> bool:
        return any(tensor.requires_grad for tensor in (self.features, *self.branch.parameters()))

    def total(self, problems: list[Problem], statistics: Tensor | None) -> Tensor:
        """The loss of all classes."""
        levels = [cut.Level(0, problem) for problem in problems]
        cuts = cut.Cut(cut.Linear(), levels, self.bytes, statistics, _OWNER)
        return cut.total_of(cuts, self.branch.weight[..., None, None], self.branch.bias, [self.features])
