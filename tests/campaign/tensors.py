"""Random tensors: logits over every range, probabilities with their ends, and the layouts that memory may have."""

import numpy as np
import torch
from torch import Tensor

NAN, INF = float('nan'), float('inf')
LAYOUTS = ('transposed', 'permuted', 'sliced', 'offset', 'stepped', 'negative bit', 'conjugate')


class Random:
    """A generator of one call, with the few kinds of choice that a campaign makes."""

    def __init__(self, *seed: int):
        self.of = np.random.default_rng(seed)

    def chance(self, probability: float) -> bool:
        return self.of.random() < probability

    def one(self, values):
        return values[int(self.of.integers(len(values)))]

    def below(self, end: int) -> int:
        return int(self.of.integers(end))

    def uniform(self, shape) -> Tensor:
        return torch.from_numpy(self.of.random(shape)).reshape(shape)

    def normal(self, shape) -> Tensor:
        return torch.from_numpy(np.asarray(self.of.standard_normal(shape))).reshape(shape)

    def mask(self, shape, probability: float) -> Tensor:
        return self.uniform(shape) < probability

    def integers(self, end: int, shape) -> Tensor:
        return torch.from_numpy(np.asarray(self.of.integers(end, size=shape))).reshape(shape)

    def sprinkled(self, tensor: Tensor, values, probability: float) -> Tensor:
        """Some elements replaced by values, each drawn alone."""
        drawn = torch.tensor(values, dtype=torch.float64)[self.integers(len(values), tensor.shape)]
        return torch.where(self.mask(tensor.shape, probability), drawn.to(tensor.dtype), tensor)


RANGES = ('ordinary', 'wide', 'far', 'extreme', 'infinite', 'unknown')


def logits(random: Random, shape, dtype: torch.dtype, range_: str) -> Tensor:
    if range_ == 'extreme':
        values = 10 ** (random.uniform(shape) * 8 - 4) * random.normal(shape).sign()
    else:
        values = {'wide': 30, 'far': 100}.get(range_, 6) * (2 * random.uniform(shape) - 1)
    if range_ == 'infinite':
        values = random.sprinkled(values, (INF, -INF), 0.3)
    if range_ == 'unknown':
        values = random.sprinkled(values, (INF, -INF, NAN, NAN), 0.15)
    return random.sprinkled(values, (0.0, -0.0), 0.02).to(dtype)


def probabilities(random: Random, shape, dtype: torch.dtype, range_: str) -> Tensor:
    values = random.uniform(shape)
    if range_ != 'ordinary':
        values = random.sprinkled(values, (0.0, 1.0, 1e-38, 1e-42, 1e-30, 1e-12, 1e-6, 1 - 1e-6), 0.4)
    if range_ == 'unknown':
        values = random.sprinkled(values, (NAN,), 0.1)
    return values.to(dtype)


def laid_out(random: Random, tensor: Tensor, layout: str) -> Tensor:
    """The same values in another memory."""
    if layout == 'transposed' and tensor.dim() >= 2:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == 'permuted' and tensor.dim() >= 3:  # a map (N, C, ...) read as (N, ..., C)
        return tensor.movedim(-1, 1).contiguous().movedim(1, -1)
    if layout == 'sliced' and tensor.dim() >= 1:
        base = tensor.new_zeros([size + 3 for size in tensor.shape])
        inside = tuple(slice(1, size + 1) for size in tensor.shape)
        base[inside] = tensor
        return base[inside]
    if layout == 'offset':
        base = tensor.new_zeros(tensor.numel() + 3)
        base[3:] = tensor.flatten()
        return base[3:].view(tensor.shape)
    if layout == 'stepped' and tensor.dim() >= 1:
        base = tensor.new_zeros([2 * size for size in tensor.shape])
        every = tuple(slice(0, None, 2) for _ in tensor.shape)
        base[every] = tensor
        return base[every]
    if layout in ('negative bit', 'conjugate') and tensor.dtype in (torch.float32, torch.float64):
        return torch.complex(torch.zeros_like(tensor), -tensor).conj().imag  # -(-x), the sign not yet in memory
    if layout == 'negative bit' and tensor.is_floating_point():
        return torch._neg_view(-tensor)
    return tensor.contiguous()


def some_layout(random: Random, tensor: Tensor, probability: float) -> tuple[Tensor, str]:
    layout = random.one(LAYOUTS) if random.chance(probability) else 'contiguous'
    return laid_out(random, tensor, layout), layout


def near_one(dtype: torch.dtype) -> float:
    """Two units in the last place above 1: the rounding of an IoU."""
    return 1 + 2 * torch.finfo(dtype).eps


def in_memory(tensor: Tensor) -> Tensor:
    """The tensor as its memory has it: zeros of one that has none, the sign put into that of a lazy one."""
    if tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return tensor.detach().resolve_neg().cpu()
