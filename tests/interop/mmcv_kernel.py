"""mmcv's focal loss kernels, out of the installed mmcv: compiled for the CPU, on a GPU mmcv's own op of the sigmoid one.

mmcv installs its CUDA sources; behind the header in mmcv_shim the kernels' arithmetic runs anywhere, also on a GPU for
which mmcv was not built. The functions here are unreduced, as the kernels are. The weights of the sigmoid one hold one
number per class and one for the background: mmcv reads weight[num_classes] there, past the end of what its users pass.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest
import torch

SHIM = Path(__file__).parent / 'mmcv_shim'
NAMES = {torch.float32: 'run_float', torch.float64: 'run_double', torch.float16: 'run_half'}


def forward(x, labels, weight=None, gamma=2.0, alpha=0.25) -> torch.Tensor:
    """mmcv's loss of each logit, in the dtype and on the device of x.

    Args:
        x: logits (N, C); float32, float64 or float16.
        labels: (N,), class in [0, C), background C; int64.
        weight: (C + 1,), one per class and one for the background, in x's dtype; or None.
    """
    return _run(False, x, labels, weight, gamma, alpha)


def backward(x, labels, weight=None, gamma=2.0, alpha=0.25) -> torch.Tensor:
    """mmcv's derivative of each loss by its logit. Arguments as in forward."""
    return _run(True, x, labels, weight, gamma, alpha)


def softmax(x, labels, weight=None, gamma=2.0, alpha=0.25) -> tuple[torch.Tensor, torch.Tensor]:
    """mmcv's softmax focal loss of each row, (N,), and its derivative by the logits, (N, C).

    Args:
        x: logits (N, C); float32, float64 or float16.
        labels: (N,), class in [0, C); negative: ignored; int64. C would read past the end.
        weight: (C,) in x's dtype; or None.
    """
    probabilities = (x.detach() - x.detach().max(1, keepdim=True).values).exp()  # as mmcv's Python does
    probabilities /= probabilities.sum(1, keepdim=True)
    assert labels.dtype == torch.int64 and labels.shape == x.shape[:1] and (labels < x.size(1)).all()
    loss, factor = (x.new_full((len(x),), float('nan')) for _ in range(2))
    grad = torch.full_like(probabilities, float('nan'))
    tensors = probabilities, labels.contiguous(), weight, loss, factor, grad
    _call(f'softmax_{NAMES[x.dtype]}', x.device, len(x), *tensors, gamma, alpha, x.size(1))
    return loss, grad


def compiler(name: str) -> str:
    """The path of a compiler; without it the test is skipped."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: mmcv's kernel can't be compiled")
    return path


def _run(derivative, x, labels, weight, gamma, alpha):
    x, labels = x.detach().contiguous(), labels.contiguous()
    assert labels.dtype == torch.int64 and labels.shape == x.shape[:1]
    assert weight is None or (weight.shape == (x.size(1) + 1,) and weight.dtype == x.dtype)
    output = torch.full_like(x, float('nan'))
    if x.is_cuda and _has_cuda_op():
        return _cuda_op(derivative, x, labels, weight, output, gamma, alpha)
    _call(NAMES[x.dtype], x.device, derivative, x.numel(), x, labels, weight, output, gamma, alpha, x.size(1))
    return output


def _call(name, device, *arguments):
    """Calls an exported function, tensors and None as pointers."""
    on_gpu = device.type == 'cuda'
    run = getattr(_library(_arch(device) if on_gpu else None), name)
    if on_gpu:
        torch.cuda.synchronize()  # the kernels run on the default stream
    error = run(*(0 if a is None else a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments))
    assert error == 0, f'CUDA error {error}'
    if on_gpu:
        torch.cuda.synchronize()


def _cuda_op(derivative, x, labels, weight, output, gamma, alpha):
    from mmcv.ops.focal_loss import ext_module

    op = ext_module.sigmoid_focal_loss_backward if derivative else ext_module.sigmoid_focal_loss_forward
    op(x, labels, x.new_empty(0) if weight is None else weight, output, gamma=gamma, alpha=alpha)
    return output


@functools.cache
def _has_cuda_op() -> bool:
    """Whether the installed mmcv was built with CUDA: a CPU build says that the device has no implementation."""
    x = torch.zeros(1, 1, device='cuda')
    try:
        _cuda_op(False, x, torch.zeros(1, dtype=torch.int64, device='cuda'), None, torch.empty_like(x), 2.0, 0.25)
    except RuntimeError as error:
        if 'implementation for device' not in str(error):
            raise
        return False
    return True


def _arch(device) -> str:
    return 'sm_{}{}'.format(*torch.cuda.get_device_capability(device))


@functools.cache
def _library(arch) -> ctypes.CDLL:
    """The kernel for a GPU architecture, or for the host (None); built once and kept in the user's cache."""
    import mmcv

    kernel = Path(mmcv.__file__).parent / 'ops' / 'csrc' / 'common' / 'cuda'
    includes = [SHIM, kernel, Path(torch.__file__).parent / 'include']
    if arch is None:
        command = [compiler('g++'), '-x', 'c++', '-O1', '-ffp-contract=off', '-fPIC']
    else:
        command = [compiler('nvcc'), '-O3', f'-arch={arch}', '-Xcompiler', '-fPIC']
    command += ['-std=c++17', '-w', '-shared', *(f'-I{folder}' for folder in includes), str(SHIM / 'kernel.cu')]
    sources = [
        *sorted(SHIM.iterdir()),
        *(kernel / f'{name}_focal_loss_cuda_kernel.cuh' for name in ('sigmoid', 'softmax')),
    ]
    version = subprocess.run([command[0], '--version'], check=True, capture_output=True).stdout
    parts = [path.read_bytes() for path in sources] + [version, ' '.join(command).encode(), torch.__version__.encode()]
    key = hashlib.sha256(b'\0'.join(parts)).hexdigest()[:16]
    folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'focal_plugin'
    target = folder / f'mmcv_kernel_{key}{sysconfig.get_config_var("SHLIB_SUFFIX")}'
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as building:
            built = Path(building) / target.name
            result = subprocess.run([*command, '-o', str(built)], capture_output=True, text=True)
            assert result.returncode == 0, f'{" ".join(command)}\n{result.stderr}'
            built.replace(target)
    library = ctypes.CDLL(str(target))
    for name in NAMES.values():
        pointer, rest = ctypes.c_void_p, [ctypes.c_float, ctypes.c_float, ctypes.c_int]
        getattr(library, name).argtypes = [ctypes.c_bool, ctypes.c_int, *[pointer] * 4, *rest]
        getattr(library, f'softmax_{name}').argtypes = [ctypes.c_int, *[pointer] * 6, *rest]
    return library
