"""Tensors that callers pass: whose memory is what it says, or refused by name."""

from __future__ import annotations
from collections.abc import Iterable

import torch
from torch import Tensor

from focal_plugin.compatibility import is_compiling
from focal_plugin.tracing import kept_unless_watched, may_look

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
REAL = (*FLOATS, *INTEGERS, torch.bool)
WITHOUT_FLOAT64 = ('mps',)  # Apple's GPUs
_STRIDED = torch.strided


def require_grad(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a gradient of any of them is asked for."""
    for tensor in tensors:
        if tensor is not None and tensor.requires_grad:
            return True
    return False


def records(tensor: Tensor) -> bool:
    """Whether autograd records what is done with a tensor, for its gradient."""
    return tensor.requires_grad and torch.is_grad_enabled()


def resolved(tensor: Tensor) -> Tensor:
    """A tensor that is not what its memory says (a lazy negative, zeros without memory) made one that is."""
    if is_compiling():
        return tensor
    if tensor.is_neg():
        return tensor.resolve_neg()
    return tensor.clone() if tensor._is_zerotensor() else tensor


def of_sums(device: torch.device) -> torch.dtype:
    """The dtype in which the sums of chunks are added up."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def widest(pred: Tensor) -> torch.dtype:
    """The dtype of composed losses: float64, because their derivatives by targets, and second ones, cancel.

    A compiler fuses what it gets, and is given the arithmetic of the kernels.
    """
    return torch.promote_types(pred.dtype, torch.float32) if is_compiling() else of_sums(pred.device)


def summable(pred: Tensor, weight: Tensor) -> Tensor:
    """A weight that may be expanded: the gradient of each element is rounded to its dtype before their sum is."""
    return weight.to(widest(pred)) if records(weight) else weight


def canonical_tensor(
    name: str, value, dtypes: tuple[torch.dtype, ...] = REAL, device: torch.device | None = None
) -> Tensor:
    """A tensor whose memory holds its values, one stride per dimension; on a device, pred's, where one is given.

    Raises:
        TypeError: no tensor, another layout, or a dtype that no backend takes; the message names the argument.
        ValueError: another device.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f'{name} must be a tensor, got {type(value).__name__}')
    if value.is_nested:
        raise TypeError(f'{name} is a nested tensor: write torch.cat(list({name}.unbind())), or pad it')
    if value.layout is not _STRIDED:
        raise TypeError(f'{name} has the layout {value.layout}: write {name}.to_dense()')
    if value.dtype not in dtypes:
        if value.is_quantized:
            raise TypeError(f'{name} is quantised ({value.dtype}): write {name}.dequantize()')
        if value.is_complex():
            raise TypeError(f'{name} must be real, got {value.dtype}: write {name}.real')
        remedy = 'float' if value.is_floating_point() else 'long'
        raise TypeError(
            f'{name} must be one of {", ".join(str(d)[6:] for d in dtypes)}, got {value.dtype}: write {name}.{remedy}()'
        )
    if device is not None and value.device != device:
        raise ValueError(f'{name} is on {value.device}, pred on {device}: write {name}.to(pred.device)')
    if is_compiling() or not (value.is_neg() or value._is_zerotensor()):
        return value  # nearly always
    return resolved(value)


def vector_on_device_of(pred: Tensor, value):
    """A vector over the classes on the device of pred, a GPU, which waits for such a copy: made once for the same numbers.

    Whatever is no vector on a CPU, or has a gradient, is given back.
    """
    if not isinstance(value, Tensor) or not value.is_cpu or value.requires_grad or not may_look(value):
        return value
    return _copied(
        tuple(value.flatten().tolist()), value.shape, torch.promote_types(pred.dtype, torch.float32), pred.device
    )


@kept_unless_watched
def _copied(numbers: tuple[float, ...], shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # later calls may record gradients
        return torch.tensor(numbers, dtype=torch.float64, device='cpu').reshape(shape).to(device, dtype)
