"""Logits, labels and dtypes that the tests hold to the oracle."""

import numpy as np
import pytest
import torch

N, C = 37, 5  # odd both: no tile or vector divides them
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
HALVES = (torch.float16, torch.bfloat16)  # converted, and computed in float32
COMPILED_HALVES = [pytest.param(each, marks=pytest.mark.compiled if each in HALVES else ()) for each in DTYPES]


def logits() -> torch.Tensor:
    """Where formulas break: around 0, where exp and its powers run out of range, where half types end, far out."""
    near = np.concatenate([np.linspace(-20, 20, 401), np.linspace(-130, 130, 521)])
    far = np.geomspace(130, 1e4, 40)
    tiny = np.geomspace(1e-30, 1e-2, 30)
    known = [9.39, 17.0, 87.3, 88.0, 88.8, 103.9, 709.0, 745.2]  # mmcv#1488, and the ends of exp's range
    values = np.concatenate(
        [near, far, -far, tiny, -tiny, known, [-v for v in known], [0.0, -0.0, np.inf, -np.inf, np.nan]]
    )
    return torch.from_numpy(values)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def placed(value, device: str):
    """A tensor, or those of a tuple or a dict, on a device, gaps and all, which `Tensor.to` closes; else as it is.

    So are tensors that are there already and those that have no storage.
    """
    if isinstance(value, dict):
        return {name: placed(each, device) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(placed(each, device) for each in value)
    if device == 'cpu' or not isinstance(value, torch.Tensor) or not value.is_cpu or value.layout != torch.strided:
        return value
    if value._is_zerotensor():
        return torch._efficientzerotensor(value.shape, dtype=value.dtype, device=device)
    if value.is_nested or value.is_quantized:
        return value
    memory = torch.empty(0, dtype=value.dtype).set_(value.detach().untyped_storage())
    there = memory.to(device).as_strided(value.shape, value.stride(), value.storage_offset())
    return torch._neg_view(there) if value.is_neg() else there


def predictions(*shape):
    return torch.randn(shape, generator=generator()) * 3


def labels(*shape, classes=C, seed=1):
    return torch.randint(0, classes + 1, shape, generator=generator(seed))


LAYOUTS = {
    'an NCHW map as (N, H, W, C)': lambda: predictions(2, C, 6, 9).permute(0, 2, 3, 1),
    'transposed': lambda: predictions(C, 70).t(),
    'a slice of rows and classes': lambda: predictions(N + 3, C + 3)[1:-2, 1:-2],
    'six dimensions that do not join': lambda: predictions(4, 4, 4, 4, 4, C)[::2, ::2, ::2, ::2, ::2],
}
