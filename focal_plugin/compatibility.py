"""What differs by version of torch; each thing is asked for by whether it is there."""

from __future__ import annotations
import contextlib
import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

# Each torch.compile knows its own: torch 2.3 and newer the first, which older ones don't have.
is_compiling = getattr(torch.compiler, 'is_compiling', None) or torch._utils.is_compiling


def aminmax(values: Tensor) -> tuple[Tensor, Tensor]:
    """values.aminmax(), which torch has not always had of halves on a CPU: 2.4 has it, 2.1 has not."""
    try:
        return values.aminmax()
    except RuntimeError:
        return values.float().aminmax()


def unravel_index(index: Tensor, shape: torch.Size) -> tuple:
    """torch.unravel_index, which torch has from 2.2."""
    if hasattr(torch, 'unravel_index'):
        return torch.unravel_index(index, shape)
    found = []
    for size in reversed(shape):
        found.append(index % size)
        index = index.div(size, rounding_mode='floor')
    return tuple(reversed(found))


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast has convolutions computed in, or None where it is off. By type of device from torch 2.4 on."""
    if hasattr(torch, 'get_autocast_dtype'):
        known = torch.amp.is_autocast_available(device.type)
        return torch.get_autocast_dtype(device.type) if known and torch.is_autocast_enabled(device.type) else None
    if device.type == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Operations in the dtypes of their arguments; some types of device know no autocast that could be switched off."""
    off = autocast_dtype(device) is None
    return contextlib.nullcontext() if off else torch.autocast(device.type, enabled=False)


def is_legacy_batchedtensor(tensor: Tensor) -> bool:
    """Whether torch.autograd.grad(is_grads_batched=True) has made a tensor; torch says so itself from 2.2."""
    if hasattr(torch._C._functorch, 'is_legacy_batchedtensor'):
        return torch._C._functorch.is_legacy_batchedtensor(tensor)
    return not torch._C._has_storage(tensor)


def outside_of_graphs(function: Callable) -> Callable:
    """torch.compiler.disable, put off to a call that may be compiled: it imports torch._dynamo, and with it Triton."""
    disabled = None

    @functools.wraps(function)
    def uncompiled(*args, **kwargs):
        nonlocal disabled
        if 'torch._dynamo' not in sys.modules:
            return function(*args, **kwargs)
        if disabled is None:
            disabled = torch.compiler.disable(function)
        return disabled(*args, **kwargs)

    return uncompiled


COMPILES = torch.__version__ >= '2.12'
"""Whether torch.compile takes a loss into its graph; older ones refuse it, or get its gradient wrong."""


def in_one_graph(function: Callable) -> Callable:
    return function if COMPILES else outside_of_graphs(function)
