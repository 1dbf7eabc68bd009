"""mmcv's op as the benchmarks provide it on a GPU: the installed one, or built from its sources, or why there is none."""

import types

import mmcv.ops
import pytest
import torch

from tests.interop import mmcv_kernel
from tools.benchmarks import contenders


def on_gpu(dtype, logits=1) -> types.SimpleNamespace:
    return types.SimpleNamespace(is_cuda=True, dtype=dtype, numel=lambda: logits)


@pytest.fixture
def provided(monkeypatch):
    """Provides mmcv's op where tests/mmcv_kernel.py has these functions and PATH this nvcc."""
    monkeypatch.setattr(mmcv.ops.focal_loss, 'ext_module', mmcv.ops.focal_loss.ext_module)

    def provide(nvcc: str | None, **functions) -> None:
        kernel = types.SimpleNamespace(NAMES=mmcv_kernel.NAMES, _arch=lambda device: None, **functions)
        monkeypatch.setattr('tests.interop.mmcv_kernel', kernel)
        monkeypatch.setattr(contenders.shutil, 'which', lambda name: nvcc)
        contenders.provide_mmcv_op(on_gpu(torch.float16))

    return provide


def test_mmcvs_op_of_another_gpu_is_built_from_its_sources(provided):
    """Built for the host, it takes the host's tensors."""

    def has_op():
        raise RuntimeError('CUDA error: no kernel image is available for execution on the device')

    built = mmcv_kernel._library(None)
    provided('nvcc', _has_cuda_op=has_op, _library=lambda arch: built)
    for dtype in (torch.float32, torch.float16):
        pred, labels = torch.randn(40, 3).to(dtype).requires_grad_(), torch.randint(0, 4, (40,))
        loss = mmcv.ops.sigmoid_focal_loss(pred, labels, 1.5, 0.4, None, 'none')
        loss.sum().backward()
        assert torch.equal(loss, mmcv_kernel.forward(pred, labels, None, 1.5, 0.4))
        assert torch.equal(pred.grad, mmcv_kernel.backward(pred, labels, None, 1.5, 0.4))


def test_why_mmcvs_op_cannot_run_is_said(provided):
    def library(arch):
        raise AssertionError('nvcc -O3\nerror: no such architecture')

    with pytest.raises(contenders.CannotRunError, match='no nvcc on the PATH'):
        provided(None, _has_cuda_op=lambda: False)
    with pytest.raises(contenders.CannotRunError, match=r'nvcc does not build .*: error: no such architecture'):
        provided('nvcc', _has_cuda_op=lambda: False, _library=library)
    with pytest.raises(contenders.CannotRunError, match='bfloat16'):
        contenders.provide_mmcv_op(on_gpu(torch.bfloat16))
    with pytest.raises(contenders.CannotRunError, match='32 bits'):
        contenders.provide_mmcv_op(on_gpu(torch.float32, 2**31))
