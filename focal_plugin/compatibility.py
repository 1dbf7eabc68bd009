"""What differs by version of torch; each thing is asked for by whether it is there."""

import torch
from torch import Tensor

# Each torch.compile knows its own: torch 2.3 and newer the first, which older ones don't have.
is_compiling = getattr(torch.compiler, 'is_compiling', None) or torch._utils.is_compiling


def unravel_index(index: Tensor, shape: torch.Size) -> tuple:
    """torch.unravel_index, which torch has from 2.2."""
    if hasattr(torch, 'unravel_index'):
        return torch.unravel_index(index, shape)
    found = []
    for size in reversed(shape):
        found.append(index % size)
        index = index.div(size, rounding_mode='floor')
    return tuple(reversed(found))


def is_legacy_batchedtensor(tensor: Tensor) -> bool:
    """Whether torch.autograd.grad(is_grads_batched=True) has made a tensor; torch says so itself from 2.2."""
    if hasattr(torch._C._functorch, 'is_legacy_batchedtensor'):
        return torch._C._functorch.is_legacy_batchedtensor(tensor)
    return not torch._C._has_storage(tensor)
