"""What is watching a call: torch.compile, torch.jit.trace, a transform of torch.func, forward-mode differentiation."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

# The modes that trace without values; whatever else watches operators, a profiler say, has them.
_TRACERS = torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY


def is_transformed() -> bool:
    """Whether vmap, grad and their kin, forward-mode differentiation or torch.jit.trace see through this call's tensors.

    Kernels would take the memory behind such a tensor for its values, and no trace would hold them: plain operations serve.
    """
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def is_batch(gradient: Tensor) -> bool:
    """Whether a gradient stands for many at once, in whichever of PyTorch's two ways to batch a backward."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(gradient)


def is_watched() -> bool:
    """Whether a tensor made now may be another than it seems: a symbol, a fake, one that a transform wraps."""
    return torch.compiler.is_compiling() or is_transformed() or torch._C._len_torch_dispatch_stack() > 0


def may_look(tensor: Tensor) -> bool:
    """Whether values may be looked at: on a GPU that would synchronise, and under a tracer there are none."""
    if not tensor.is_cpu or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return torch._C._get_tracing_state() is None and not any(map(torch._C._get_dispatch_mode, _TRACERS))


def kept_unless_watched(make: Callable) -> Callable:
    """functools.lru_cache, of which nothing that a tracer made comes out later."""
    kept = functools.lru_cache(maxsize=64)(make)

    @functools.wraps(make)
    def call(*key):
        return make(*key) if is_watched() else kept(*key)

    return call
