"""Loads the library that fits this processor and calls it (see api.h for the structures)."""

import ctypes
import functools
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

from focal_plugin.math import Spec

MAX_DIMS = 64  # as many as torch walks through
MAX_PARAMETERS = 8
TYPES = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.bool: 3,
    torch.uint8: 3,
    torch.int64: 4,
}
# torch's own name for the processor, so that ATEN_CPU_CAPABILITY limits this library as it limits torch.
_LIBRARIES = {'AVX512': 'avx512', 'AVX2': 'avx2'}

_Dims = ctypes.c_int64 * MAX_DIMS


class Operand(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('type', ctypes.c_int64), ('stride', _Dims)]

    def set(self, tensor: torch.Tensor, strides: tuple[int, ...]) -> None:
        self.data = tensor.data_ptr()
        self.type = TYPES[tensor.dtype]
        self.stride[: len(strides)] = strides


class Call(ctypes.Structure):
    _fields_ = [
        ('dims', ctypes.c_int64),
        ('size', _Dims),
        *((name, Operand) for name in ('input', 'target', 'score', 'weight', 'upstream', 'output')),
        ('by_row', ctypes.c_int64),
        ('channel', ctypes.c_void_p),
        ('channels', ctypes.c_int64),
        ('channel_stride', ctypes.c_int64 * 2),
        ('table', ctypes.c_void_p),
        ('parameter', ctypes.c_float * MAX_PARAMETERS),
        *((name, ctypes.c_int64) for name in ('exponent', 'labels', 'activated', 'derivative', 'both')),
        *((name, ctypes.c_int64) for name in ('has_ignore_index', 'ignore_index')),
        ('scale', ctypes.c_double),
        ('after', ctypes.c_double),
        ('statistics', ctypes.c_void_p),
        ('threads', ctypes.c_int64),
        ('gomp_parallel', ctypes.c_void_p),
        ('sum', ctypes.c_double),
        ('bad_row', ctypes.c_int64),
        ('is_out_of_range', ctypes.c_int64),
    ]


@functools.cache
def path() -> Path | None:
    """The library for this processor, or None where the package was installed without a compiler.

    FOCAL_PLUGIN_LIBRARIES names a folder of other builds, with sanitizers for one.
    """
    folder = Path(os.environ.get('FOCAL_PLUGIN_LIBRARIES', Path(__file__).parent))
    name = f'lib_{_LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), "baseline")}'
    candidates = (folder / (name + suffix) for suffix in EXTENSION_SUFFIXES)
    return next((candidate for candidate in candidates if candidate.exists()), None)


@functools.cache
def library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path()))
    for run in (loaded.focal_plugin_run, loaded.focal_plugin_run_rows):
        run.restype = None
        run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    loaded.focal_plugin_advise.restype = None
    loaded.focal_plugin_advise.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    return loaded


@functools.cache
def _gomp_parallel() -> int | None:
    """The address of GOMP_parallel in the OpenMP runtime that torch has loaded: a second one would fight its threads."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except AttributeError:
        return None


@functools.cache
def _variant(name: str) -> int:
    return ctypes.addressof(ctypes.c_byte.in_dll(library(), f'focal_plugin_{name}'))


def zeros_like(tensor: torch.Tensor) -> torch.Tensor:
    """As torch's, in large pages: filling fresh memory in small ones takes three times as long."""
    zeros = torch.empty_like(tensor)
    library().focal_plugin_advise(zeros.data_ptr(), zeros.numel() * zeros.element_size())
    return zeros.zero_()


def run(call: Call, spec: Spec) -> None:
    call.threads = torch.get_num_threads()
    call.gomp_parallel = _gomp_parallel()
    skeleton = library().focal_plugin_run if spec.skeleton == 'elementwise' else library().focal_plugin_run_rows
    skeleton(ctypes.byref(call), _variant(spec.name))
