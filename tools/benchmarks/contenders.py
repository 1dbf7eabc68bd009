"""The losses that losses.py and accuracy.py compare. One entry in CONTENDERS adds one.

Without mmdet there is no class FusedFocalLoss: the function that it calls takes its place, under its own name.
"""

import functools
import importlib.util
import shutil
from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

import focal_plugin
from focal_plugin import backend, functional

HAS_MMDET = importlib.util.find_spec('mmdet') is not None
MMDET, FORMULA, COMPILED, MMCV = 'mmdet FocalLoss', "torchvision's formula", 'torch.compile of it', "mmcv's op"
OURS = {
    name: f'{"FusedFocalLoss" if HAS_MMDET else "sigmoid_focal_loss"} ({name})'
    for name in ('torch', 'native', 'triton', 'cuda')
}
BACKENDS = {label: name for name, label in OURS.items()}
"""Those that are forced while a contender of this name runs."""
CLONE = 'clone of the logits'
GAMMA, ALPHA = 2.0, 0.25


class CannotRunError(Exception):
    """Why a contender can't run here."""


def first_line(error: Exception) -> str:
    line, _, _ = str(error).strip().partition('\n')
    return f'{type(error).__name__}: {line}'


def elementwise_formula(pred: Tensor, target: Tensor) -> Tensor:
    """torchvision.ops.sigmoid_focal_loss without its reduction, for dense targets."""
    p = torch.sigmoid(pred)
    cross_entropy = F.binary_cross_entropy_with_logits(pred, target, reduction='none')
    p_t = p * target + (1 - p) * (1 - target)
    alpha_t = ALPHA * target + (1 - ALPHA) * (1 - target)
    return alpha_t * cross_entropy * (1 - p_t) ** GAMMA


def formula(pred: Tensor, labels: Tensor, weight: Tensor, avg_factor: float) -> Tensor:
    """The whole job around it. The comparison gives torch.compile more to fuse than one_hot, and eager less to write."""
    target = (labels[:, None] == torch.arange(pred.size(1), device=pred.device)).to(pred.dtype)
    return (elementwise_formula(pred, target) * weight[:, None]).sum() / avg_factor


def _compiled(pred: Tensor) -> Callable:
    if pred.is_cpu and not (shutil.which('g++') or shutil.which('clang++')):
        raise CannotRunError('torch.compile needs a C++ compiler')
    torch._dynamo.reset()
    return torch.compile(formula, dynamic=False)


def _mmdet(pred: Tensor) -> Callable:
    if not HAS_MMDET:
        raise CannotRunError('mmdet is not installed')
    from mmdet.registry import MODELS

    provide_mmcv_op(pred)
    return MODELS.build({'type': 'FocalLoss', 'gamma': GAMMA, 'alpha': ALPHA})


def _mmcv(pred: Tensor) -> Callable:
    if not pred.is_cuda:
        raise CannotRunError("mmcv's op needs a GPU")
    provide_mmcv_op(pred)
    from mmcv.ops import sigmoid_focal_loss

    def loss(pred, labels, weight, avg_factor):
        return (sigmoid_focal_loss(pred, labels, GAMMA, ALPHA, None, 'none') * weight[:, None]).sum() / avg_factor

    return loss


def provide_mmcv_op(pred: Tensor) -> None:
    """Lets mmcv's Python code run on logits like these, where they are on a GPU; raises CannotRunError."""
    if not pred.is_cuda:
        return
    if pred.dtype == torch.bfloat16:
        raise CannotRunError("mmcv's op takes no bfloat16")
    if pred.numel() >= 2**31:
        raise CannotRunError("mmcv's op counts logits in 32 bits")
    for needed in ('mmcv', 'pytest'):
        if importlib.util.find_spec(needed) is None:
            raise CannotRunError(f"mmcv's op is found and built by tests/interop/mmcv_kernel.py, which needs {needed}")
    from mmcv.ops import focal_loss

    from tests.interop import mmcv_kernel as kernel

    try:
        if kernel._has_cuda_op():
            return
    except RuntimeError as error:
        if 'no kernel image' not in str(error):  # mmcv was built for other GPUs
            raise
    if not shutil.which('nvcc'):
        raise CannotRunError(
            'this mmcv was not built for this GPU, and no nvcc on the PATH builds its op from its sources'
        )
    try:
        focal_loss.ext_module = _built_op(kernel)
    except AssertionError as error:
        said = ' '.join(str(error).splitlines()[1:4])
        raise CannotRunError(f"nvcc does not build mmcv's op: {said}") from error


def _built_op(kernel) -> SimpleNamespace:
    """What mmcv's own Python code calls, built from the sources that a CPU-only mmcv installs too."""
    library = kernel._library(kernel._arch(torch.device('cuda')))

    def launch(derivative, pred, labels, weight, output, gamma, alpha):
        if pred.is_cuda and torch.cuda.current_stream() != torch.cuda.default_stream():
            raise RuntimeError("mmcv's op, built from its sources, runs on the default stream alone")
        pointers = [t.data_ptr() if t.numel() else None for t in (pred, labels, weight, output)]
        run = getattr(library, kernel.NAMES[pred.dtype])
        error = run(derivative, pred.numel(), *pointers, gamma, alpha, pred.size(1))
        if error:
            raise RuntimeError(f"mmcv's kernel: CUDA error {error}")

    return SimpleNamespace(
        sigmoid_focal_loss_forward=functools.partial(launch, False),
        sigmoid_focal_loss_backward=functools.partial(launch, True),
    )


def fused(name: str, pred: Tensor, reduction: str = 'mean') -> Callable:
    """Ours for logits like these, where the backend can run: the class, or without mmdet the function."""
    try:
        with focal_plugin.use_backend(name):
            backend.choose(pred[:0])
    except ValueError as error:
        raise CannotRunError(str(error)) from error
    arguments = dict(gamma=GAMMA, alpha=ALPHA, reduction=reduction)
    if HAS_MMDET:
        return focal_plugin.losses.FusedFocalLoss(**arguments)

    def loss(pred, labels, weight=None, avg_factor=None):
        return functional.sigmoid_focal_loss(pred, labels, weight, avg_factor=avg_factor, **arguments)

    return loss


CONTENDERS: dict[str, Callable[[Tensor], Callable]] = {
    MMDET: _mmdet,
    FORMULA: lambda pred: formula,
    COMPILED: _compiled,
    MMCV: _mmcv,
    **{label: functools.partial(fused, name) for name, label in OURS.items()},
}
"""By name: the logits -> the loss, called with (pred, labels, weight of each row, avg_factor); raises CannotRunError."""
