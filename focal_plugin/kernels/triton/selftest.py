"""Whether this Triton computes what the kernels say: asked once for each device, before its first results are used.

There are versions whose results are wrong without an error: 3.1's interpreter leaves outputs unwritten. And there are
machines on which Triton can't start a kernel: its launcher is a C extension, built at the first launch.
"""

from __future__ import annotations
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import cast

import torch
import triton
from torch import Tensor

from focal_plugin.kernels import selftest
from focal_plugin.kernels.problem import Problem
from focal_plugin.kernels.triton import elementwise, sums
from focal_plugin.kernels.triton.elementwise import launch_of
from focal_plugin.kernels.triton.launches import Launch

CLASSES = (9, 8)  # walked in order, and in tiles

_ANOTHER = "or on NVIDIA's GPUs choose the cuda backend, which needs neither: with focal_plugin.use_backend('cuda')"
_LDCONFIG = '/sbin/ldconfig'
_verdicts: dict[tuple[torch.device, bool], RuntimeError | None] = {}


def require(pred: Tensor, in_one_pass: bool = False) -> None:
    """Tests the device of these logits; raises RuntimeError where Triton's results are wrong, or there are none."""
    selftest.require(pred, in_one_pass, _verdicts, _verdict)


def _verdict(device: torch.device, in_one_pass: bool) -> RuntimeError | None:
    cause = remedy = None
    root: BaseException
    try:
        with torch.inference_mode(False):  # the expected gradient is autograd's
            computed = partial(_computed, in_one_pass=in_one_pass)
            faults = (selftest.fault('triton', device, classes, computed) for classes in CLASSES)
            fault = next(filter(None, faults), None)
    except Exception as error:
        cause = root = error
        while root.__cause__ is not None:
            root = root.__cause__
        if selftest.ran_out_of_memory(root):
            raise
        fault, remedy = f'{type(root).__name__}: {root}', _remedy(root)
    if fault is None:
        return None
    verdict = RuntimeError(
        f'Triton {triton.__version__} fails the self-test on {device}, a focal loss of known values: {fault}. '
        f'{remedy or "Install another version of Triton"}, or choose the torch backend: with '
        f"focal_plugin.use_backend('torch'), or FOCAL_PLUGIN_BACKEND=torch in the environment"
    )
    verdict.__cause__ = cause
    return verdict


def _remedy(error: BaseException) -> str | None:
    """What to do where a machine lacks what Triton builds its launcher with, or a folder for it; None: another fault."""
    if _LDCONFIG in str(error):
        return f'It looks for libcuda.so.1 by {_LDCONFIG}: name its folder in TRITON_LIBCUDA_PATH, {_ANOTHER}'
    if isinstance(error, subprocess.CalledProcessError):
        folders = [argument[2:] for argument in error.cmd if str(argument).startswith('-I')]
        if any(Path(folder, 'Python.h').exists() for folder in folders):
            return (
                f'Its launcher is built by a C compiler, whose message is printed above: mend that, name another in CC, '
                f'{_ANOTHER}'
            )
        return (
            f'Its launcher is a C extension, and Python.h is in none of {", ".join(folders)}: install the headers of this '
            f'Python (python3-dev, or python3-devel), {_ANOTHER}'
        )
    compiler = os.environ.get('CC')
    if 'C compiler' in str(error) or (isinstance(error, OSError) and error.filename == compiler is not None):
        named = f', which CC={compiler} is not' if compiler else ''
        return f'Its launcher is built by a C compiler{named}: install gcc, or name one in CC, {_ANOTHER}'
    if isinstance(error, OSError):
        return 'Name a folder in TRITON_CACHE_DIR in which Triton may keep what it builds (~/.triton is its own)'
    return None


def _computed(problem: Problem, in_one_pass: bool) -> tuple[Tensor, Tensor]:
    """The kernels' sum and gradient, written over NaN."""

    def unwritten(*shape: int) -> Tensor:
        return torch.full(shape, float('nan'), dtype=torch.float32, device=problem.pred.device)

    loss, grad = unwritten(), unwritten(*problem.pred.shape)
    beside = grad if in_one_pass else None
    like = cast(Launch, launch_of(problem, beside))
    parts = unwritten(like.layout.programs * like.layout.splits)
    elementwise.launch(problem, like, beside, None, parts)
    sums.add(parts, None, loss)
    if not in_one_pass:
        one = torch.ones_like(loss)
        elementwise.launch(problem, cast(Launch, launch_of(problem, grad, one)), grad, one)
    return loss, grad
