"""The class convolution of a head and its loss as one, so that its class logits are never held.

A head that computes its losses within ``recording`` gets from its class convolution a Map of logits that nobody has
computed. Its own code turns it into rows and calls the loss on them, level by level or on all; what comes back is the
promise of a loss, and ``Cut.losses`` puts the loss of all levels in its place.
"""

from __future__ import annotations
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from mmdet.models.layers import NormedConv2d
from torch import Tensor, nn

from focal_plugin.compatibility import autocast_dtype, without_autocast
from focal_plugin.deferred import Deferred
from focal_plugin.kernels.problem import Problem
from focal_plugin.maps import Map
from focal_plugin.ops import cut as ops
from focal_plugin.parameters import mebibytes
from focal_plugin.rows import Levels

OF_A_CPU, OF_A_GPU = 64.0, 128.0  # MiB
"""What a chunk takes unless a head says otherwise, its logits and as much again; a GPU waits for Python at every chunk."""
_OWNER = ops.Owner('a head with cut=True', 'write cut=False')


def checked_size(cut: bool | float) -> bool | float:
    """An argument that is True, False or a number of MiB."""
    return cut if isinstance(cut, bool) else mebibytes('cut', cut)


def chunk_bytes(cut: bool | float, device: torch.device) -> int:
    """The bytes of a chunk on a device, of True or a number of MiB."""
    if cut is True:
        cut = OF_A_CPU if device.type == 'cpu' else OF_A_GPU
    return math.ceil(cut * 2**20)


class Promise(Deferred):
    """A level's loss, which is computed with those of the others when the head has called for all of them."""

    description = 'the loss of one level of a head with cut=True'
    remedy = 'all levels have one loss, which the head only hands on. Write cut=False'

    def __init__(self, cut: Cut) -> None:
        self.cut = cut

    def register_hook(self, hook: Callable) -> None:
        """Of the loss of all levels: a second level's same hook is called once."""
        if hook not in self.cut.hooks:
            self.cut.hooks.append(hook)


class CutLevels(Levels):
    """The class logits of some levels, of which only the shapes are made: tensors of one element, expanded."""

    are_held = False

    def __init__(self, cut: Cut, of: list[int], detached: bool = False) -> None:
        super().__init__([cut.logits[level] for level in of])
        self.cut, self.of, self.detached = cut, of, detached
        self.block = max(1, cut.size // (self.maps[0].size(1) * self.maps[0].element_size()))

    @property
    def requires_grad(self) -> bool:
        return not self.detached and any(tensor.requires_grad for tensor in self.cut.tensors())

    def __add__(self, others: Levels) -> Levels:
        others = cast(CutLevels, others)  # Rows join what is of one kind
        return CutLevels(self.cut, [*self.of, *others.of], self.detached and others.detached)

    def detach(self) -> Levels:
        return CutLevels(self.cut, self.of, detached=True)

    def picked(self, level: int, view: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached):
            return self.cut.rows(self.of[level], view.size(-1), places)

    def total(self, problems: list[Problem], statistics: Tensor | None) -> Promise:
        return self.cut.add(self.of, problems, statistics)


class Cut:
    """A class convolution that is computed with its loss, in one call of a head.

    Attributes:
        size: bytes of a chunk of logits.
        logits: what stands for the logits of each level.
        hooks: of the loss.
    """

    _weight: Tensor  # those of the first level
    _bias: Tensor | None

    def __init__(self, convolution: nn.Conv2d, size: int, scored: bool) -> None:
        self.size, self._scored = size, scored
        padding = cast('tuple[int, ...]', convolution.padding)  # as checked
        self._layer = ops.Convolution(convolution.stride, padding, convolution.dilation)
        self._features: list[Tensor] = []
        self._levels: list[ops.Level] = []
        self._statistics: Tensor | None = None
        self._is_untracked = False
        self.logits: list[Tensor] = []
        self.hooks: list[Callable] = []

    def __call__(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Map:
        """Takes the place of nn.Conv2d._conv_forward."""
        if not self._features:  # a normalised weight is another tensor, and the same, at every level
            _check_weight(weight)
            self._weight, self._bias = weight, bias
        dtype = autocast_dtype(features.device) or features.dtype
        batch, channels = features.size(0), self._weight.size(0)
        places = _places(features.shape[2:], self._weight.shape[2:], self._layer)
        self._features.append(features)
        self._is_untracked |= not torch.is_grad_enabled()
        self.logits.append(features.new_empty((), dtype=dtype).expand(batch, channels, *places))
        return Map(CutLevels(self, [len(self.logits) - 1]), self._scored)

    def tensors(self) -> list[Tensor]:
        """What gets a gradient, if it wants one."""
        return [t for t in (self._weight, self._bias, *self._features) if t is not None]

    def add(self, levels: list[int], problems: list[Problem], statistics: Tensor | None) -> Promise:
        """Puts levels' losses off to the total."""
        self._levels += map(ops.Level, levels, problems)
        self._statistics = statistics
        return Promise(self)

    def losses(self, losses: Mapping[str, Any]) -> dict[str, Any]:
        """A head's losses, the promises of one of them replaced by the sum of all levels.

        Raises:
            TypeError: the head has put none of its losses off, or several.
        """
        promised = [key for key, value in losses.items() if any(isinstance(each, Promise) for each in _listed(value))]
        if len(promised) != 1:
            raise TypeError(
                f'a head with cut=True calls its loss_cls for one of its losses, this one for {promised or "none"}: write '
                f'cut=False'
            )
        (name,), values = promised, _listed(losses[promised[0]])
        if not all(isinstance(value, Promise) for value in values):
            raise TypeError(f'{name} has other parts than the losses of the levels: write cut=False')
        return {**losses, name: self._total()}

    def _total(self) -> Tensor:
        if self._is_untracked and torch.is_grad_enabled() and not all(t.requires_grad for t in self.tensors()):
            raise RuntimeError(
                'the class convolution ran without gradients and its loss with them, as under reentrant activation '
                "checkpointing, which the layers before would get none through: leave the head out of mmengine's "
                'activation_checkpointing, checkpoint it with use_reentrant=False, or write cut=False'
            )
        cut = ops.Cut(self._layer, self._levels, self.size, self._statistics, _OWNER)
        total = ops.total_of(cut, self._weight, self._bias, self._features)
        for hook in self.hooks:
            total.register_hook(hook)
        return total

    def rows(self, level: int, classes: int, places: tuple[Tensor, ...]) -> Tensor:
        """The logits of the rows at some places (image, y, x, anchor), (M, C), from the features around each.

        As many rows at once as have three copies of what is around them in a chunk's memory.
        """
        around = 3 * self._weight[0].numel() * self.logits[level].element_size()
        parts = zip(*(each.split(max(1, self.size // around)) for each in places))
        return torch.cat([self._rows(level, classes, *part) for part in parts])

    def _rows(self, level: int, classes: int, image: Tensor, y: Tensor, x: Tensor, anchor: Tensor) -> Tensor:
        (height, width), (stride, padding, dilation) = self._weight.shape[2:], self._layer
        dtype, features, picked, order = self.logits[level].dtype, self._features[level], [], []
        with without_autocast(features.device):
            near = [
                _at(
                    features,
                    image,
                    y * stride[0] + dy * dilation[0] - padding[0],
                    x * stride[1] + dx * dilation[1] - padding[1],
                )
                for dy in range(height)
                for dx in range(width)
            ]
            patches = torch.stack(near, dim=-1).flatten(1).to(dtype)
            for a in range(self._weight.size(0) // classes):
                of_anchor, channels = (anchor == a).nonzero().squeeze(1), slice(a * classes, (a + 1) * classes)
                bias = None if self._bias is None else self._bias[channels].to(dtype)
                picked.append(
                    nn.functional.linear(patches[of_anchor], self._weight[channels].flatten(1).to(dtype), bias)
                )
                order.append(of_anchor)
        return torch.cat(picked)[torch.cat(order).argsort()]


def _at(features: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The features of some places, (M, F), 0 outside."""
    height, width = features.shape[2:]
    outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
    return features[image, :, y.clamp(0, height - 1), x.clamp(0, width - 1)].masked_fill(outside[:, None], 0)


@contextmanager
def recording(convolution: nn.Module, size: int, scored: bool) -> Iterator[Cut]:
    """Within it a class convolution computes no logits and gives Maps that stand for them.

    Args:
        convolution: nn.Conv2d, or mmdet's NormedConv2d, whose normalised weight and features are computed as ever.
        size: bytes of a chunk of logits.
        scored: as of Map.

    Raises:
        TypeError: another convolution, or one with hooks, which would find no logits.
    """
    cut = Cut(checked(convolution), size, scored)
    vars(convolution)['_conv_forward'] = cut
    try:
        yield cut
    finally:
        del vars(convolution)['_conv_forward']


def is_recording(convolution: nn.Module) -> bool:
    return '_conv_forward' in vars(convolution)


def checked(convolution: nn.Module) -> nn.Conv2d:
    """A class convolution that can be cut."""
    name = type(convolution).__name__
    kinds = nn.Conv2d, NormedConv2d
    # Another subclass, LoRA's say, may do more with its logits.
    if not isinstance(convolution, nn.Conv2d) or type(convolution) not in kinds:
        raise TypeError(
            f'cut=True knows class convolutions that are nn.Conv2d or NormedConv2d, got {name}: write cut=False'
        )
    if convolution.groups != 1 or convolution.padding_mode != 'zeros' or isinstance(convolution.padding, str):
        raise TypeError(
            f'cut=True knows class convolutions of one group, padded by zeros, got {convolution}: write cut=False'
        )
    if has_hooks(convolution):
        raise TypeError(
            'the class convolution has hooks, which would find no logits, since cut=True never holds them: remove them '
            'for training, or write cut=False'
        )
    return convolution


def has_hooks(module: nn.Module) -> bool:
    hooks = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    return any(getattr(module, name) for name in hooks)


def _check_weight(weight: Tensor) -> None:
    """A sharded weight is whole only inside of its module's forward, and the loss comes after that."""
    if type(weight) not in (Tensor, nn.Parameter) or weight.dim() != 4 or weight.untyped_storage().nbytes() == 0:
        raise TypeError(
            f'cut=True computes the class convolution in the loss, where its weight must be whole, got a '
            f'{type(weight).__name__} of shape {tuple(weight.shape)}: leave the head out of what FSDP shards, or write '
            f'cut=False'
        )


def _places(size: torch.Size, kernel: torch.Size, layer: ops.Convolution) -> list[int]:
    """Height and width of what a convolution makes of a size."""
    return [
        (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        for length, taps, stride, padding, dilation in zip(size, kernel, *layer)
    ]


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]
