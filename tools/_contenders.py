"""The losses that tools/benchmark.py and tools/accuracy.py compare. One entry in CONTENDERS adds one."""

import functools
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

import focal_plugin
from focal_plugin import backend
from focal_plugin.losses import FusedFocalLoss

MMDET, FORMULA, COMPILED, MMCV = 'mmdet FocalLoss', "torchvision's formula", 'torch.compile of it', "mmcv's op"
OURS = {name: f'FusedFocalLoss ({name})' for name in ('torch', 'native', 'triton')}
GAMMA, ALPHA = 2.0, 0.25


class CannotRunError(Exception):
    """Why a contender can't run here."""


@dataclass(frozen=True)
class Contender:
    """A loss of (pred, labels, weight of each row, avg_factor).

    Attributes:
        prepare: (dtype, device) -> the loss; raises CannotRunError.
        backend: ours, forced while it runs.
    """

    prepare: Callable[[torch.dtype, str], Callable[[Tensor, Tensor, Tensor, float], Tensor]]
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


def _formula(dtype, device):
    return formula


def _compiled(dtype, device):
    if device == 'cpu' and not (shutil.which('g++') or shutil.which('clang++')):
        raise CannotRunError('torch.compile needs a C++ compiler')
    torch._dynamo.reset()
    return torch.compile(formula, dynamic=False)


def _mmdet(dtype, device):
    from mmdet.registry import MODELS

    if device == 'cuda':
        _provide_mmcv_op(dtype)
    return MODELS.build({'type': 'FocalLoss', 'gamma': GAMMA, 'alpha': ALPHA})


def _mmcv(dtype, device):
    if device != 'cuda':
        raise CannotRunError("mmcv's op needs a GPU")
    _provide_mmcv_op(dtype)
    from mmcv.ops import sigmoid_focal_loss

    def loss(pred, labels, weight, avg_factor):
        return (sigmoid_focal_loss(pred, labels, GAMMA, ALPHA, None, 'none') * weight[:, None]).sum() / avg_factor

    return loss


def mmcv_kernel():
    """tests/mmcv_kernel.py: mmcv's kernel out of its installed sources."""
    tests = str(Path(__file__).parents[1] / 'tests')
    if tests not in sys.path:
        sys.path.append(tests)
    import mmcv_kernel

    return mmcv_kernel


def _provide_mmcv_op(dtype) -> None:
    if dtype == torch.bfloat16:
        raise CannotRunError("mmcv's op takes no bfloat16")
    if mmcv_kernel()._has_cuda_op():
        return
    if not shutil.which('nvcc'):
        raise CannotRunError('this mmcv was built without CUDA, and there is no nvcc to build its op from its sources')
    from mmcv.ops import focal_loss

    focal_loss.ext_module = _built_op()


@functools.cache
def _built_op() -> SimpleNamespace:
    """What mmcv's own Python code calls, built from the sources that a CPU-only mmcv installs too."""
    kernel = mmcv_kernel()
    library = kernel._library(kernel._arch(torch.device('cuda')))

    def launch(derivative, pred, labels, weight, output, gamma, alpha):
        pointers = [t.data_ptr() if t.numel() else None for t in (pred, labels, weight, output)]
        run = getattr(library, kernel.NAMES[pred.dtype])
        error = run(derivative, pred.numel(), *pointers, gamma, alpha, pred.size(1))
        if error:
            raise RuntimeError(f"mmcv's kernel: CUDA error {error}")

    return SimpleNamespace(
        sigmoid_focal_loss_forward=functools.partial(launch, False),
        sigmoid_focal_loss_backward=functools.partial(launch, True),
    )


def fused(dtype: torch.dtype, device: str, name: str, reduction: str = 'mean') -> FusedFocalLoss:
    """Ours, where the backend can run."""
    try:
        with focal_plugin.use_backend(name):
            backend.choose(torch.empty(0, 1, dtype=dtype, device=device))
    except ValueError as error:
        raise CannotRunError(str(error)) from error
    return FusedFocalLoss(gamma=GAMMA, alpha=ALPHA, reduction=reduction)


CONTENDERS: dict[str, Contender] = {
    MMDET: Contender(_mmdet),
    FORMULA: Contender(_formula),
    COMPILED: Contender(_compiled),
    MMCV: Contender(_mmcv),
    **{label: Contender(functools.partial(fused, name=name), name) for name, label in OURS.items()},
}
