"""What is watching a call: torch.compile, a transform of torch.func, forward-mode differentiation."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_transformed() -> bool:
    """Whether vmap, grad, jvp and their kin, or forward-mode differentiation, see through the tensors of this call.

    Kernels would take the memory behind such a tensor for its values: plain operations serve.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batch(gradient: Tensor) -> bool:
    """Whether a gradient stands for many at once, in whichever of PyTorch's two ways to batch a backward."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(gradient)


def may_look(tensor: Tensor) -> bool:
    """Whether values may be looked at: on a GPU that would synchronise, and under a tracer there are none."""
    return tensor.is_cpu and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def is_watched() -> bool:
    """Whether a tensor made now may be another than it seems: a symbol, a fake, one that a transform wraps."""
    return torch.compiler.is_compiling() or is_transformed() or torch._C._len_torch_dispatch_stack() > 0
