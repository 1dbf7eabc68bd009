"""Machine code on a GPU, by NVIDIA's driver: loaded once for each device, and launched on PyTorch's current stream."""

from __future__ import annotations
import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch

from focal_plugin.kernels.cuda import compiler

_OUT_OF_MEMORY = 2
_INVALID_CONTEXT = 201
FEW_BYTES = 8  # of registers that a thread may keep in memory, which cost less than fewer threads at once
_LOCAL_BYTES = 3  # CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES


@functools.lru_cache(maxsize=None)
def _cuda() -> ctypes.CDLL:
    return ctypes.CDLL('nvcuda.dll' if hasattr(ctypes, 'WinDLL') else 'libcuda.so.1')


def _check(status: int) -> None:
    if status:
        said = ctypes.c_char_p()
        _cuda().cuGetErrorString(status, ctypes.byref(said))
        kind = torch.cuda.OutOfMemoryError if status == _OUT_OF_MEMORY else RuntimeError
        raise kind(f'CUDA: {(said.value or b"unknown error").decode()} ({status})')


def loaded(kernel: str, macros: dict[str, Any], device: torch.device) -> ctypes.c_void_p:
    """A kernel on a device, which is the current one; launches over any number of rows share it."""
    return _loaded(kernel, tuple(macros.items()), device)


@functools.lru_cache(maxsize=None)
def _loaded(kernel: str, defined: tuple[tuple[str, Any], ...], device: torch.device) -> ctypes.c_void_p:
    macros = dict(defined)
    code = compiler.compiled(kernel, macros, compiler.arch_of(*torch.cuda.get_device_capability(device)))
    module, function, spilled = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    _in_context(lambda: _cuda().cuModuleLoadData(ctypes.byref(module), code))
    _check(_cuda().cuModuleGetFunction(ctypes.byref(function), module, kernel.encode()))
    _check(_cuda().cuFuncGetAttribute(ctypes.byref(spilled), _LOCAL_BYTES, function))
    fewer = with_fewer_blocks(macros, spilled.value)
    return function if fewer is None else loaded(kernel, fewer, device)


def with_fewer_blocks(macros: dict[str, Any], spilled: int) -> dict[str, Any] | None:
    """What a kernel is compiled with instead whose threads keep so many bytes of registers in memory; None: it stays."""
    if spilled <= FEW_BYTES or macros.get('BLOCKS', 1) == 1:
        return None
    return {**macros, 'BLOCKS': macros['BLOCKS'] // 2}  # at once, with more registers each


def launch(function: ctypes.c_void_p, grid: tuple[int, int], threads: int, call: bytes, device: torch.device) -> None:
    """Starts a kernel, whose one parameter is a Call, on the current stream of a device, which is the current one."""
    stream = ctypes.c_void_p(torch._C._cuda_getCurrentRawStream(device.index))
    parameters = ctypes.byref(ctypes.c_char_p(call))
    launched = _cuda().cuLaunchKernel  # whose argtypes, converted one by one, would double the time of a call
    status = launched(function, *grid, 1, threads, 1, 1, 0, stream, parameters, None)
    if status == _INVALID_CONTEXT:
        _in_context(lambda: launched(function, *grid, 1, threads, 1, 1, 0, stream, parameters, None))
    elif status:
        _check(status)


def _in_context(call: Callable[[], int]) -> None:
    """Calls the driver, in a thread that PyTorch has not used yet too: it has no context of its own."""
    status = call()
    if status == _INVALID_CONTEXT:
        torch.cuda.current_stream().query()  # makes PyTorch's the current one
        status = call()
    _check(status)
