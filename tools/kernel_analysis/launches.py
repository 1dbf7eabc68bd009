"""What the package launches for a variant's loss as heads call it, compiled for a GPU that need not be there.

    python -m tools.kernel_analysis.launches sm_90

compiles every kernel of every variant, and writes a line of JSON for each: what it was, and the error, or null.
"""

import itertools
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from focal_plugin import backend, use_backend
from focal_plugin.functional import problem_of
from focal_plugin.kernels.problem import Problem
from focal_plugin.math import SPECS, Spec
from focal_plugin.ops import library
from tools.benchmarks.inputs import typical_arguments
from tools.kernel_analysis.gpus import ARCHS

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
ROWS = 200_000
MASKS, PIXELS = 'mask_focal', 28 * 28  # the focal loss of masks, each in the channel of its class, and their size
MAPS = {f'focal_maps_{height}x{width}': (height, width) for height, width in ((100, 168), (50, 84), (25, 42), (13, 21))}
"""The focal loss of a head's maps, as RetinaNet has them from P3 to P6 of an image of 800 x 1344."""
CLASSES = (80, 3, 365)  # walked in tiles, a thread per row, in order
BATCH, ANCHORS = 64, 9  # of the maps: enough rows that a program has all classes of its own


def spec_of(kernel: str) -> Spec:
    return SPECS['focal' if kernel == MASKS or kernel in MAPS else kernel]


def form_of(kernel: str) -> str:
    return 'dense' if kernel == MASKS else spec_of(kernel).form


def typical_problem(kernel: str, dtype: torch.dtype, classes: int) -> Problem:
    """A variant's loss, or that of masks or maps, as heads call it, on meta tensors."""
    spec, rows = spec_of(kernel), ROWS + 1  # no multiple of 16, which Triton would know
    with torch.device('meta'):
        if kernel in MAPS:
            maps = torch.empty(BATCH, ANCHORS * classes, *MAPS[kernel], dtype=dtype)
            pred = maps.unflatten(1, (ANCHORS, classes)).permute(0, 3, 4, 1, 2)
        else:
            pred = torch.empty(rows, classes, *[PIXELS] * (kernel == MASKS), dtype=dtype)
        read, channel = (pred.select(1, 0), torch.empty(rows, dtype=torch.int64)) if kernel == MASKS else (pred, None)
        labels, weight = torch.empty(read.shape[:-1], dtype=torch.int64), torch.empty(read.shape[:-1])
        target = {'dense': torch.empty_like(read), 'scored': (labels, weight), 'labels': labels}[form_of(kernel)]
        common = {'avg_factor': torch.empty(()), 'channel': channel, 'activated': spec.probabilities == 'from_logits'}
    with mock.patch.multiple(backend, GPUS=('meta',), HAS_TRITON=True), use_backend('triton'):
        return problem_of(spec, typical_arguments(spec, classes, 'meta'), pred, target, weight, **common)


def compiled(kernel: str, dtype: torch.dtype, classes: int, arch: str) -> list[Any]:
    """The kernels of a forward of the package, of its sum and of a backward, compiled by Triton in place of being launched.

    Of MAPS also that of both in one pass, and of its sum. Where one can't be compiled, the error takes its place.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    from focal_plugin.kernels import layout
    from focal_plugin.kernels.triton import launches, selftest

    kernels, target = [], GPUTarget(*ARCHS[arch])

    def compile_instead(function: Any, grid: Any) -> Callable:
        def compile_one(*args, **kwargs) -> None:
            try:
                kernels.append(function.run(*args, grid=grid, warmup=True, **kwargs))
            except Exception as error:
                kernels.append(error)

        return compile_one

    problem = typical_problem(kernel, dtype, classes)
    # In the place of a GPU's driver; the device is the key of the JIT's caches.
    of_target = {f'get_current_{what}': lambda: target for what in ('target', 'device')}
    driver.set_active(SimpleNamespace(**of_target, get_current_stream=lambda device: 0))
    with (
        mock.patch.object(triton.JITFunction, '__getitem__', compile_instead),
        mock.patch.object(layout, 'LANES', target.warp_size),
        mock.patch.object(launches, '_kept', {}),
        mock.patch.object(selftest, 'require'),
    ):
        run(kernel, problem, problem.spec.statistics)
    return kernels


def run(kernel: str, problem: Problem, gathers: bool) -> None:
    """What is launched in training: forward and backward; of maps also both in one pass, as of a head with cut=True."""
    library.forward(problem)
    library.backward(problem, torch.empty((), device='meta'), gathers)
    if kernel in MAPS:
        library.forward_and_backward(problem)


def main(arch: str) -> None:
    for name, dtype, classes in itertools.product([*SPECS, MASKS], ('fp32', 'bf16'), CLASSES):
        try:
            found = compiled(name, DTYPES[dtype], classes, arch)
        except Exception as error:
            found = [error]
        for kernel in found:
            error = kernel if isinstance(kernel, Exception) else None
            while error is not None and error.__cause__ is not None:
                error = error.__cause__
            said = error and f'{type(error).__name__}: {error}'
            print(json.dumps({'what': f'{name}, {dtype}, C = {classes}', 'error': said}), flush=True)


if __name__ == '__main__':
    main(sys.argv[1])
