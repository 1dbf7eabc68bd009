"""Loads the library that fits this processor, and finds what is in it."""

from __future__ import annotations
import ctypes
import functools
import logging
import os
from pathlib import Path

import torch

from focal_plugin.math import SPECS

logger = logging.getLogger('focal_plugin')

# By torch's own name for the processor, so that ATEN_CPU_CAPABILITY limits this library as it limits torch. A lesser one
# serves where a compiler could not build the first.
_LIBRARIES = {'AVX512': ('avx512', 'avx2', 'baseline'), 'AVX2': ('avx2', 'baseline')}
_ENTRY_POINTS = {'elementwise': 'focal_plugin_run', 'rowwise': 'focal_plugin_run_rows'}  # by family


@functools.lru_cache(maxsize=None)
def path() -> Path | None:
    """The library for this processor, or None where the package was installed without one, or with none that loads.

    FOCAL_PLUGIN_LIBRARIES names a folder of other builds, with sanitizers for one.
    """
    folder = Path(os.environ.get('FOCAL_PLUGIN_LIBRARIES', Path(__file__).parent))
    names = _LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ('baseline',))
    candidates = (folder / f'lib_{name}.so' for name in names)
    return next((candidate for candidate in candidates if candidate.exists() and _loads(candidate)), None)


def _loads(path: Path) -> bool:
    """Whether a library can be loaded: built elsewhere it may want other versions of its own libraries."""
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        logger.warning('the native CPU kernel is left out, because it can not be loaded: %s', error)
        return False
    return True


@functools.lru_cache(maxsize=None)
def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(path()))


@functools.lru_cache(maxsize=None)
def entry_point(name: str):
    """The function that runs a variant: of a call and the variant's address."""
    run = getattr(library(), _ENTRY_POINTS[SPECS[name].family])
    run.restype = None
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return run


@functools.lru_cache(maxsize=None)
def variant(name: str) -> int:
    """The address of a variant's functions."""
    return ctypes.addressof(ctypes.c_byte.in_dll(library(), f'focal_plugin_{name}'))


@functools.lru_cache(maxsize=None)
def gomp_parallel() -> int | None:
    """The address of GOMP_parallel in the OpenMP runtime that torch has loaded: a second one would fight its threads."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except AttributeError:
        return None


def zeros_like(tensor: torch.Tensor) -> torch.Tensor:
    """As torch's, in large pages: filling fresh memory in small ones takes three times as long."""
    zeros = torch.empty_like(tensor)
    advise = library().focal_plugin_advise
    advise.restype, advise.argtypes = None, [ctypes.c_void_p, ctypes.c_int64]
    advise(zeros.data_ptr(), zeros.numel() * zeros.element_size())
    return zeros.zero_()
