"""CUDA C++ compiled at run time by NVRTC, which comes with PyTorch's CUDA builds; what it gives is kept on disk."""

from __future__ import annotations
import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch

_FOLDER = Path(__file__).parent
_MATH = _FOLDER.parents[1] / 'math'
_OPTIONS = ('--std=c++17', '--prec-div=false')  # divisions to two units in the last place
_PRELUDE = """
#if __CUDA_ARCH__ >= 700
#define GRID_CONSTANT __grid_constant__
#else
#define GRID_CONSTANT
#endif
"""


@functools.lru_cache(maxsize=None)
def path() -> Path | None:
    """NVRTC: among PyTorch's own libraries, in NVIDIA's wheels, or in a CUDA toolkit; None where it is not there."""
    folders = [Path(torch.__file__).parent / 'lib']
    for site in sys.path:
        nvidia = Path(site) / 'nvidia'
        folders += [*nvidia.glob('cuda_nvrtc/[lb]i[bn]'), *nvidia.glob('cu1*/[lb]i[bn]')]
    folders.append(Path(os.environ.get('CUDA_HOME', '/usr/local/cuda')) / 'lib64')
    for folder in folders:
        for name in ('libnvrtc.so*', 'libnvrtc-*.so*', 'nvrtc64_*.dll'):
            found = [
                each for each in sorted(folder.glob(name)) if 'builtins' not in each.name and 'alt' not in each.name
            ]
            if found:
                return found[0]
    return None


@functools.lru_cache(maxsize=None)
def _nvrtc() -> ctypes.CDLL:
    found = cast(Path, path())
    for builtins in found.parent.glob('*nvrtc-builtins*'):  # which it looks for by name when it first compiles
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(builtins))
    library = ctypes.CDLL(str(found))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def version() -> tuple[int, int]:
    """NVRTC's."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def _check(status: int, program: ctypes.c_void_p | None = None) -> None:
    if status:
        log = '' if program is None else '\n' + _text(program, 'ProgramLog').decode()
        raise RuntimeError(f'NVRTC: {_nvrtc().nvrtcGetErrorString(status).decode()}{log}')


def _text(program: ctypes.c_void_p, what: str) -> bytes:
    """What NVRTC has made of a program."""
    library, size = _nvrtc(), ctypes.c_size_t()
    _check(getattr(library, f'nvrtcGet{what}Size')(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f'nvrtcGet{what}')(program, text))
    return text.raw


@functools.lru_cache(maxsize=None)
def _sources() -> dict[str, str]:
    """The headers by the names under which they are included: vmath.h is this folder's, point.h the CPU's too."""
    headers = [*_MATH.glob('*.h'), _FOLDER.parent / 'native' / 'point.h', *_FOLDER.glob('*.h'), *_FOLDER.glob('*.cu')]
    return {each.name: each.read_text() for each in headers}


def compiled(kernel: str, macros: Mapping[str, object], arch: str) -> bytes:
    """A kernel's machine code, for 'sm_90' and the like, or its PTX, for 'compute_90'.

    Raises:
        RuntimeError: NVRTC can't compile it, for the reason that it gives.
    """
    defined = ''.join(f'#define {name} {_literal(value)}\n' for name, value in macros.items())
    text = f'{defined}{_PRELUDE}#include "{kernel}.cu"\n'
    parts = (text, arch, *_OPTIONS, repr(version()), *itertools.chain(*sorted(_sources().items())))
    key = hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:32]
    name = f'{kernel}_{key}.{"cubin" if arch.startswith("sm_") else "ptx"}'
    with contextlib.suppress(OSError):
        return (_cache() / name).read_bytes()
    made = _compile(text, arch)
    with contextlib.suppress(OSError):  # a folder that can't be written to: compiled anew by each process
        folder = _cache()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as writing:
            whole = Path(writing) / name
            whole.write_bytes(made)
            whole.replace(folder / name)
    return made


def _cache() -> Path:
    """The folder of what is kept.

    Raises:
        FileNotFoundError: the user has no home.
    """
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    if base.startswith('~'):
        raise FileNotFoundError('no home')
    return Path(base) / 'focal_plugin' / 'cuda'


def _literal(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _compile(text: str, arch: str) -> bytes:
    library, program, headers = _nvrtc(), ctypes.c_void_p(), _sources()
    names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
    texts = (ctypes.c_char_p * len(headers))(*(each.encode() for each in headers.values()))
    options = [f'--gpu-architecture={arch}'.encode(), *(option.encode() for option in _OPTIONS)]
    made = library.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), b'focal_plugin.cu', len(headers), texts, names
    )
    _check(made)
    try:
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        _check(status, program)
        return _text(program, 'CUBIN') if arch.startswith('sm_') else _text(program, 'PTX').rstrip(b'\0')
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
