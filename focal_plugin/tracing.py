"""What is watching a call: torch.compile, torch.jit.trace, a transform of torch.func, forward-mode differentiation."""

from __future__ import annotations
import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as _modes

from focal_plugin.compatibility import is_compiling, is_legacy_batchedtensor

# The modes that trace without values; whatever else watches operators, a profiler say, has them.
_TRACERS = {'FakeTensorMode', 'ProxyTorchDispatchMode'}


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
    if is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or is_legacy_batchedtensor(gradient)


def is_watched() -> bool:
    """Whether a tensor made now may be another than it seems: a symbol, a fake, one that a transform wraps."""
    return is_compiling() or is_transformed() or torch._C._len_torch_dispatch_stack() > 0


def recomputes() -> bool:
    """Whether a forward runs inside of a backward, as activation checkpointing has it."""
    return torch._C._current_graph_task_id() != -1


def may_look(tensor: Tensor) -> bool:
    """Whether values may be looked at: on a GPU that would synchronise, and under a tracer there are none."""
    if not tensor.is_cpu or is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return torch._C._get_tracing_state() is None and not _TRACERS & {type(mode).__name__ for mode in _modes()}


@contextlib.contextmanager
def recording_apart() -> Iterator[None]:
    """Autograd records within it, and hands none of what it saves to hooks from outside: a checkpoint would count it."""
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_itself, _itself):
        yield


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def kept_unless_watched(make: Callable) -> Callable:
    """functools.lru_cache, of which nothing that a tracer made comes out later."""
    kept = functools.lru_cache(maxsize=64)(make)

    @functools.wraps(make)
    def call(*key):
        return make(*key) if is_watched() else kept(*key)

    return call
