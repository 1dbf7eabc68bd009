"""Feature maps of class logits that a head turns into rows, without the copy.

mmdet's dense heads write ``cls_score.permute(0, 2, 3, 1).reshape(-1, C)``, some ``.reshape(images, -1, C)``, and some join
the levels by torch.cat. A head that holds a Map instead of the tensor runs the same code and gets Rows or Images, which only
remember it.
"""

from __future__ import annotations

from torch import Tensor

from focal_plugin.deferred import refuse
from focal_plugin.images import Images
from focal_plugin.rows import Levels, Logits, Rows

_NHWC = (0, 2, 3, 1)


class Map(Logits):
    """The class logits of one level, (B, A * C, H, W).

    Args:
        logits: the level.
        scored: the loss takes (labels, scores), so dense targets need not be made.
    """

    def __init__(self, logits: Tensor | Levels, scored: bool = False) -> None:
        self.levels = logits if isinstance(logits, Levels) else Levels([logits])
        self.shape, self.scored = self.maps[0].shape, scored

    def permute(self, *order: int) -> _Permuted:
        if order != _NHWC:
            refuse(Map, f'permute{order}')
        return _Permuted(self.levels, self.scored)


class _Permuted(Logits):
    """The same as (B, H, W, A * C)."""

    def __init__(self, levels: Levels, scored: bool) -> None:
        self.levels, self.scored = levels, scored
        self.shape = self.maps[0].permute(_NHWC).shape

    def reshape(self, *shape: int) -> Rows | Images:
        images, channels = self.shape[0], self.shape[-1]
        if shape[:-1] not in ((-1,), (images, -1)) or shape[-1] < 1 or channels % shape[-1]:
            refuse(_Permuted, f'reshape{shape} of {channels} channels')
        rows = Rows(self.levels, shape[-1], self.scored)
        return rows if len(shape) == 2 else Images(rows)
