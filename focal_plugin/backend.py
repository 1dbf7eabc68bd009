"""Which kernel computes: 'triton', 'cuda', 'native', 'torch', or 'auto'."""

from __future__ import annotations
import contextlib
import functools
import importlib.util
import logging
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from focal_plugin.kernels.cuda import compiler
from focal_plugin.kernels.native import loader

logger = logging.getLogger('focal_plugin')

GPUS = ('cuda', 'xpu')  # what Triton compiles for, ROCm's cuda included
BACKENDS = ('auto', 'triton', 'cuda', 'native', 'torch')
DTYPES = dict.fromkeys(('triton', 'cuda', 'native'), (torch.float32, torch.float16, torch.bfloat16))


def _has_triton() -> bool:
    """Whether a Triton is there that can compile the kernels; importing it to look would cost every user its import."""
    spec = importlib.util.find_spec('triton')
    if spec is None or spec.origin is None:
        return False
    return (Path(spec.origin).parent / 'backends' / 'compiler.py').exists()


def _builds_launchers() -> bool:
    """Whether there is what Triton needs beside itself: it builds a C extension, from which it launches its kernels."""
    headers = sysconfig.get_path('include', 'nt' if os.name == 'nt' else 'posix_prefix')
    compilers = (os.environ['CC'],) if 'CC' in os.environ else ('gcc', 'clang')
    return Path(headers, 'Python.h').exists() and any(map(shutil.which, compilers))


# Looked up once: torch.compile can't trace the look-ups. Triton too decides at its import whether it interprets.
HAS_NATIVE = loader.path() is not None
HAS_TRITON = _has_triton()
BUILDS_LAUNCHERS = _builds_launchers()
HAS_NVRTC = torch.version.cuda is not None and compiler.path() is not None  # for NVIDIA's GPUs
HAS_COMPILER = HAS_TRITON or HAS_NVRTC  # for some GPU
NO_COMPILER = "There is neither Triton here, or one too old (3.0 will do), nor NVIDIA's run-time compiler, NVRTC"
INTERPRETING = os.environ.get('TRITON_INTERPRET') == '1'


def _checked(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f'unknown backend {name!r}: choose one of {", ".join(map(repr, BACKENDS))}')
    return name


forced = _checked(os.environ.get('FOCAL_PLUGIN_BACKEND') or 'auto')


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Forces a backend inside a ``with`` block, for this process.

    Args:
        name: 'triton' (GPU tensors; CPU tensors too with TRITON_INTERPRET=1), 'native' (CPU; float32, bfloat16,
            float16), 'cuda' (NVIDIA's GPUs, by CUDA C++ that NVRTC compiles), 'torch' (any device and dtype), or 'auto':
            by device and dtype, the default. The environment variable FOCAL_PLUGIN_BACKEND sets it for the whole process.

    Raises:
        ValueError: an unknown name. A loss called inside raises ValueError for a tensor that the backend can't take.
    """
    global forced
    previous, forced = forced, _checked(name)
    try:
        yield
    finally:
        forced = previous


def _of_gpu(device: str) -> str:
    """The backend that serves a kind of GPU: 'torch' where nothing compiles kernels for it."""
    serves_nvrtc = HAS_NVRTC and device == 'cuda'
    if HAS_TRITON and (BUILDS_LAUNCHERS or not serves_nvrtc):
        return 'triton'
    return 'cuda' if serves_nvrtc else 'torch'


def lacks_compiler(device: str) -> bool:
    """Whether the kernels can't be compiled for a kind of GPU: the torch backend serves, which mmdet's losses outrun there.

    Not where a backend is forced.
    """
    return forced == 'auto' and device in GPUS and _of_gpu(device) == 'torch'


@functools.lru_cache(maxsize=None)
def warn_if_slow(device: str, dtype: torch.dtype) -> None:
    """Says once that the torch backend serves where a faster one was to be expected."""
    if forced == 'torch':
        return
    if device == 'cpu' and dtype in DTYPES['native'] and not HAS_NATIVE:
        logger.warning(
            'focal_plugin was installed without its native CPU kernel (no C++ compiler at install time?): the slower '
            'torch backend serves. Reinstall with a compiler: pip install --force-reinstall --no-deps focal_plugin'
        )
    if lacks_compiler(device) and dtype in DTYPES['triton']:
        logger.warning('%s: the torch backend serves on %s, slower than mmdet with mmcv', NO_COMPILER, device)


def _why_not(name: str, pred: Tensor) -> str | None:
    """Why a backend can't take these logits, or None."""
    on_cpu = pred.device.type == 'cpu'
    if name in DTYPES and pred.dtype not in DTYPES[name]:
        return f'logits of {pred.dtype}: it takes {", ".join(str(d) for d in DTYPES[name])}'
    if name == 'native':
        if not on_cpu:
            return f'logits on {pred.device}: it takes CPU tensors'
        if not HAS_NATIVE:
            return 'anything here: focal_plugin was installed without a C++ compiler'
    if name == 'cuda':
        if not pred.is_cuda or torch.version.cuda is None:
            return f'logits on {pred.device}: it takes tensors on NVIDIA GPUs'
        if not HAS_NVRTC:
            return "anything here: NVIDIA's run-time compiler, libnvrtc, was not found beside PyTorch"
    if name == 'triton':
        if not HAS_TRITON:
            return 'anything here: there is no Triton, or one too old (3.0 will do)'
        if on_cpu and not INTERPRETING:
            return 'logits on cpu: it takes GPU tensors (CPU tensors only with TRITON_INTERPRET=1)'
        if not on_cpu and pred.device.type not in GPUS:
            return f'logits on {pred.device}: it takes tensors on {" or ".join(GPUS)}'
    return None


def choose(pred: Tensor, differentiates_more: bool = False) -> str:
    """The backend for these logits.

    Args:
        pred: the logits.
        differentiates_more: target, weight or avg_factor requires a gradient: only the torch backend gives one.

    Raises:
        ValueError: a forced backend can't take them.
    """
    name = forced
    if name == 'auto':
        if differentiates_more:
            return 'torch'
        if pred.is_cpu:
            return 'native' if HAS_NATIVE and pred.dtype in DTYPES['native'] else 'torch'
        if pred.device.type not in GPUS or pred.dtype not in DTYPES['triton']:
            return 'torch'
        return _of_gpu(pred.device.type)
    if differentiates_more and name != 'torch':
        raise ValueError(f"backend {name!r} gives no gradient of target, weight or avg_factor: use 'auto' or 'torch'")
    reason = _why_not(name, pred)
    if reason is not None:
        raise ValueError(f"backend {name!r} can't take {reason}; use 'auto' or 'torch'")
    return name
