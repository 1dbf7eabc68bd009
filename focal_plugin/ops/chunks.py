"""Which output channels of a class convolution are computed at once, and what a loss is handed of them."""

from __future__ import annotations
from typing import NamedTuple

import torch
from torch import Tensor

from focal_plugin.kernels.problem import Problem

_CHANNELS = 16  # what convolutions take at once, on a CPU with AVX-512 and on a GPU's matrix units


class Chunk(NamedTuple):
    """Whole anchors, or some classes of one anchor."""

    anchors: slice
    classes: slice
    channels: slice

    def of(self, problem: Problem, labels: Labels, logits: Tensor) -> Problem:
        """A level's problem of this chunk's logits alone, (B, channels, H, W)."""
        anchors, classes = self.anchors, self.classes
        target, ignored = labels.among(self)
        per_class = problem.per_class_parameters
        return problem._replace(
            pred=logits.unflatten(1, (-1, classes.stop - classes.start)).permute(0, 3, 4, 1, 2),
            target=target,
            ignore_index=ignored,
            score=None if problem.score is None else problem.score[..., anchors],
            weight=None if problem.weight is None else problem.weight[..., anchors, classes],
            per_class_parameters=None if per_class is None else per_class[:, classes].contiguous(),
        )


_NOBODYS, _IGNORED = -1, -2  # labels of a chunk: those that no class has, which are NaN on a GPU, and of rows left out


class Labels:
    """A level's labels, from which each chunk's are made: all but its own classes are background there."""

    def __init__(self, problem: Problem) -> None:
        self._given, self._classes, self._ignored = problem.target, problem.pred.size(-1), problem.ignore_index
        self._kept = self._given  # without those of rows left out, which may be a chunk's class
        self._others: dict[int, Tensor] = {}

    def among(self, chunk: Chunk) -> tuple[Tensor, int | None]:
        """(a chunk's labels, the label of rows that are left out)."""
        anchors, classes = chunk.anchors, chunk.classes
        count = classes.stop - classes.start
        if count == self._classes:
            return self._given[..., anchors], self._ignored
        if count not in self._others:
            self._others[count] = self._of_others(count)
        own = self._kept[..., anchors] - classes.start
        labels = torch.where((own >= 0) & (own < count), own, self._others[count][..., anchors])
        return labels, None if self._ignored is None else _IGNORED

    def _of_others(self, count: int) -> Tensor:
        """What stands for labels that are not a chunk's, the same for all chunks of so many classes."""
        labels = self._given
        others = torch.full_like(labels, count).masked_fill_((labels < 0) | (labels > self._classes), _NOBODYS)
        if self._ignored is not None:
            is_ignored = labels == self._ignored
            others.masked_fill_(is_ignored, _IGNORED)
            self._kept = labels.masked_fill(is_ignored, _NOBODYS)
        return others


def chunks(anchors: int, classes: int, channels: int) -> list[Chunk]:
    """Chunks of nearly equal size.

    Args:
        anchors, classes: of each place.
        channels: the most of a chunk; parts of an anchor's classes are multiples of 16 where that fits.
    """
    if channels >= classes:
        step = _even(anchors, channels // classes)
        starts = range(0, anchors, step)
        some = [slice(a, min(a + step, anchors)) for a in starts]
        return [Chunk(a, slice(0, classes), slice(a.start * classes, a.stop * classes)) for a in some]
    step = _even(classes, max(channels, 1))
    step = min(-(-step // _CHANNELS) * _CHANNELS, max(channels // _CHANNELS * _CHANNELS, step))
    found = []
    for anchor in range(anchors):
        for start in range(0, classes, step):
            of = slice(start, min(start + step, classes))
            first = anchor * classes
            found.append(Chunk(slice(anchor, anchor + 1), of, slice(first + of.start, first + of.stop)))
    return found


def _even(count: int, most: int) -> int:
    """The size of as few equal parts of at most so many as there must be."""
    parts = -(-count // most)
    return -(-count // parts)
