"""The losses that losses.py and accuracy.py compare. One entry in CONTENDERS adds one.

Without mmdet there is no class FusedFocalLoss: the function that it calls takes its place, under its own name.
"""

import functools
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
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
    for name in ('torch', 'native', 'triton')
}
CLONE = 'clone of the logits'
GAMMA, ALPHA = 2.0, 0.25


def is_ours(contender: str, backend: str = '') -> bool:
    """Whether a row is of this package, of one backend or of any; whichever of class and function could be timed."""
    return any(contender.endswith(f'({name})') for name in ([backend] if backend else OURS))


class CannotRunError(Exception):
    """Why a contender can't run here."""


def first_line(error: Exception) -> str:
    line, _, _ = str(error).strip().partition('\n')
    return f'{type(error).__name__}: {line}'


@dataclass(frozen=True)
class Contender:
    """A loss of (pred, labels, weight of each row, avg_factor).

    Attributes:
        prepare: the logits that it will be called with -> the loss; raises CannotRunError.
        backend: ours, forced while it runs.
    """

    prepare: Callable[[Tensor], Callable[[Tensor, Tensor, Tensor, float], Tensor]]
    backend: str = 'auto'


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


def _formula(pred):
    return formula


def _compiled(pred):
    if pred.is_cpu and not (shutil.which('g++') or shutil.which('clang++')):
        raise CannotRunError('torch.compile needs a C++ compiler')
    torch._dynamo.reset()
    return torch.compile(formula, dynamic=False)


def _mmdet(pred):
    if not HAS_MMDET:
        raise CannotRunError('mmdet is not installed')
    from mmdet.registry import MODELS

    if pred.is_cuda:
        provide_mmcv_op(pred.dtype, pred.numel())
    return MODELS.build({'type': 'FocalLoss', 'gamma': GAMMA, 'alpha': ALPHA})


def _mmcv(pred):
    if not pred.is_cuda:
        raise CannotRunError("mmcv's op needs a GPU")
    provide_mmcv_op(pred.dtype, pred.numel())
    from mmcv.ops import sigmoid_focal_loss

    def loss(pred, labels, weight, avg_factor):
        return (sigmoid_focal_loss(pred, labels, GAMMA, ALPHA, None, 'none') * weight[:, None]).sum() / avg_factor

    return loss


def provide_mmcv_op(dtype: torch.dtype, logits: int = 0) -> None:
    """Lets mmcv's Python code run on the GPU; raises CannotRunError."""
    if dtype == torch.bfloat16:
        raise CannotRunError("mmcv's op takes no bfloat16")
    if logits >= 2**31:
        raise CannotRunError("mmcv's op counts logits in 32 bits")
    reason = _provided_mmcv_op()
    if reason is not None:
        raise CannotRunError(reason)


@functools.cache
def _provided_mmcv_op() -> str | None:
    """Provides it; or why it can't be."""
    if importlib.util.find_spec('mmcv') is None:
        return 'mmcv is not installed'
    if importlib.util.find_spec('pytest') is None:
        return "mmcv's op is found and built by tests/interop/mmcv_kernel.py, which needs pytest"
    from tests.interop import mmcv_kernel as kernel

    try:
        if kernel._has_cuda_op():
            return None
    except RuntimeError as error:
        if 'no kernel image' not in str(error):  # mmcv was built for other GPUs
            raise
    if not shutil.which('nvcc'):
        return 'this mmcv was not built for this GPU, and there is no nvcc on the PATH to build its op from its sources'
    from mmcv.ops import focal_loss

    try:
        focal_loss.ext_module = _built_op(kernel)
    except AssertionError as error:
        return f"nvcc does not build mmcv's op: {' '.join(str(error).splitlines()[1:4])}"
    return None


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


def fused(dtype: torch.dtype, device: str, name: str, reduction: str = 'mean') -> Callable:
    """Ours, where the backend can run: the class, or without mmdet the function."""
    try:
        with focal_plugin.use_backend(name):
            backend.choose(torch.empty(0, 1, dtype=dtype, device=device))
    except ValueError as error:
        raise CannotRunError(str(error)) from error
    arguments = dict(gamma=GAMMA, alpha=ALPHA, reduction=reduction)
    if HAS_MMDET:
        return focal_plugin.losses.FusedFocalLoss(**arguments)

    def loss(pred, labels, weight=None, avg_factor=None):
        return functional.sigmoid_focal_loss(pred, labels, weight, avg_factor=avg_factor, **arguments)

    return loss


def _fused(name: str) -> Contender:
    return Contender(lambda pred: fused(pred.dtype, pred.device.type, name), name)


CONTENDERS: dict[str, Contender] = {
    MMDET: Contender(_mmdet),
    FORMULA: Contender(_formula),
    COMPILED: Contender(_compiled),
    MMCV: Contender(_mmcv),
    **{label: _fused(name) for name, label in OURS.items()},
}
