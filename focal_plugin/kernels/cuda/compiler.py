"""CUDA C++ compiled at run time by NVRTC, which comes with PyTorch's CUDA builds; what it gives is kept on disk."""

from __future__ import annotations
import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch

_FOLDER = Path(__file__).parent
_MATH = _FOLDER.parents[1] / 'math'
_OPTIONS = ('--std=c++17', '--prec-div=false')  # divisions to two units in the last place
_KEPT = 'code, its digest'  # what a file on disk holds: another version of this package may keep something else
_DIGEST = hashlib.sha256().digest_size
_PRELUDE = """
#if __CUDA_ARCH__ >= 700
#define GRID_CONSTANT __grid_constant__
#else
#define GRID_CONSTANT
#endif
"""


@functools.lru_cache(maxsize=None)
def path() -> Path | None:
    """NVRTC, of the CUDA that PyTorch was built with where there are several; None where it is not there."""
    first, wanted = None, int((torch.version.cuda or '0').partition('.')[0])
    for library in itertools.chain.from_iterable(map(_libraries, _folders())):
        # An update of torch may leave the wheels of an older CUDA, whose NVRTC knows fewer GPUs.
        if _major(library) == wanted:
            return library
        first = first or library
    return first


def _folders() -> Iterator[Path]:
    """PyTorch's own libraries, NVIDIA's wheels, an environment of conda, a CUDA toolkit, and those of the system."""
    yield Path(torch.__file__).parent / 'lib'
    for site in sys.path:
        nvidia = Path(site) / 'nvidia'
        yield from (*nvidia.glob('cuda_nvrtc/[lb]i[bn]'), *nvidia.glob('cu1*/[lb]i[bn]'))
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)):
        yield from (Path(prefix) / 'lib', Path(prefix) / 'Library/bin')
    toolkit = Path(os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH') or '/usr/local/cuda')
    yield from (toolkit / 'lib64', toolkit / 'bin')
    yield from map(Path, filter(None, os.environ.get('LD_LIBRARY_PATH', '').split(os.pathsep)))
    yield from (Path('/usr/lib64'), Path('/usr/lib') / (sysconfig.get_config_var('MULTIARCH') or ''))


def _libraries(folder: Path) -> list[Path]:
    names = ('libnvrtc.so*', 'libnvrtc-*.so*', 'nvrtc64_*.dll')
    found = itertools.chain(*(sorted(folder.glob(name)) for name in names))
    return [each for each in found if 'builtins' not in each.name and 'alt' not in each.name]


def _major(library: Path) -> int | None:
    """Of which CUDA a library is, by the name of its file: libnvrtc.so.12, libnvrtc-672ee683.so.11.2, nvrtc64_120_0.dll."""
    named = re.search(r'\.so\.(\d+)|nvrtc64_(\d+)\d_', library.resolve().name)
    return int(named[1] or named[2]) if named else None


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


def arch_of(major: int, minor: int) -> str:
    """What is compiled for a GPU of a compute capability.

    Its machine code. Where NVRTC is older than the GPU, that of the nearest GPU before it, which runs on those of the same
    major version; on those of another PTX does, which the driver compiles.

    Raises:
        RuntimeError: NVRTC no longer knows so old a GPU.
    """
    wanted = 10 * major + minor
    older = [known for known in _architectures() if known <= wanted]
    if not older:
        oldest, nvrtc = min(_architectures()), '{}.{}'.format(*version())
        raise RuntimeError(f'NVRTC {nvrtc} compiles for GPUs from sm_{oldest} on, this one is of sm_{wanted}')
    nearest = max(older)
    return f'sm_{nearest}' if nearest // 10 == major else f'compute_{nearest}'


@functools.lru_cache(maxsize=None)
def _architectures() -> tuple[int, ...]:
    """Those that NVRTC compiles for: 90 is sm_90."""
    count = ctypes.c_int()
    _check(_nvrtc().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    known = (ctypes.c_int * count.value)()
    _check(_nvrtc().nvrtcGetSupportedArchs(known))
    return tuple(known)


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
    parts = (_KEPT, text, arch, *_OPTIONS, repr(version()), *itertools.chain(*sorted(_sources().items())))
    key = hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:32]
    name = f'{kernel}_{key}.{"cubin" if arch.startswith("sm_") else "ptx"}'
    with contextlib.suppress(OSError):
        kept = (_cache() / name).read_bytes()
        made, digest = kept[:-_DIGEST], kept[-_DIGEST:]
        if hashlib.sha256(made).digest() == digest:  # a crash may leave a part of a file, or an empty one
            return made
    made = _compile(text, arch)
    with contextlib.suppress(OSError):  # a folder that can't be written to: compiled anew by each process
        folder = _cache()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as writing:
            whole = Path(writing) / name
            whole.write_bytes(made + hashlib.sha256(made).digest())
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
