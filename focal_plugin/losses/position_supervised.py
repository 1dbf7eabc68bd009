"""Position-supervised loss as an MMEngine component."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor

from focal_plugin.functional import prepare
from focal_plugin.losses.quality import FusedQualityLoss
from focal_plugin.math import position_supervised
from focal_plugin.rows import Rows


@MODELS.register_module()
class FusedPositionSupervisedLoss(FusedQualityLoss):
    """Stable-DINO's loss; a subclass of QualityFocalLoss, so that the heads of DETR and DINO hand it (labels, IoU)."""

    spec = position_supervised.SPEC

    def _of_levels(self, rows: Rows, target, *arguments, **changed) -> Tensor:
        """The qualities of all levels are divided by one maximum, as those of rows are."""
        if self.normalize == 'batch':
            labels, scores = target if isinstance(target, tuple) else (target, None)
            parameters = {name: getattr(self, name) for name in self.spec.defaults}
            by_spec, ignored = position_supervised.prepare, self.ignore_index
            labels, scores, _ = prepare(by_spec, parameters, rows, labels, scores, None, ignored)
            target = labels if scores is None else (labels, scores)
            changed['normalize'] = 'none'
        return super()._of_levels(rows, target, *arguments, **changed)
