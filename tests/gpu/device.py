"""A device that is not there: PyTorch's PrivateUse1 in Python, whose memory is the CPU's and whose every wait is noted.

A tensor of it is a plain torch.Tensor with a pointer, strides and a storage of its own, so that whatever asks for
tensor.device, type(tensor), data_ptr() or is_cpu goes on as on a GPU. Its operators run on the CPU, over the same memory.
Operators that mix it with the CPU are refused as on a GPU, and so are pointers of the CPU's in a launch.
"""

import contextlib
import ctypes
import functools
import sys
import traceback
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from focal_plugin import backend
from focal_plugin.kernels.torch import elementwise as eager
from focal_plugin.kernels.torch import rowwise as rowwise_eager

NAME = 'standin'
CPU, DEVICE = 1, 12  # DLPack's numbers of the CPU, and of a device that it does not know
ON_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
NOTHING_WATCHES = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
# What makes a view of nothing but sizes and strides: the CPU's own, which looks at no memory.
VIEWS = {'as_strided', 'view', 'unfold', 'set_', '_reshape_alias'}
# The result's size, or the result itself, is a number that the host has to know.
WAITS = {
    '_local_scalar_dense', 'equal', 'nonzero', 'masked_select', '_unique2', 'unique_dim', 'unique_consecutive',
    'bincount', 'repeat_interleave',
}  # fmt: skip
_waits: list[str] = []
_registered: list[torch.library.Library] = []


def _as(kind: int, tensor: Tensor) -> Tensor:
    """The same elements, all of the storage's, as a tensor of the CPU or of the device: DLPack's number is overwritten."""
    capsule = torch._C._to_dlpack(tensor)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    ctypes.c_int32.from_address(pointer(capsule, b'dltensor') + 8).value = kind
    return torch._C._from_dlpack(capsule)


def _strided(tensor: Tensor, *place) -> Tensor:
    return torch.ops.aten.as_strided.default.redispatch(ON_CPU, tensor, *place)


def _other(kind: int, tensor: Tensor) -> Tensor:
    """The memory of a tensor, seen from the other side: all of its storage, so that views of it keep their offsets."""
    whole = _strided(tensor, (tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)
    return _strided(_as(kind, whole), tensor.shape, tensor.stride(), tensor.storage_offset())


def on_host(tensor: Tensor) -> Tensor:
    host = _other(CPU, tensor)
    host = host.conj() if tensor.is_conj() else host
    return torch._neg_view(host) if tensor.is_neg() else host


on_device = functools.partial(_other, DEVICE)


def _is_on_device(value) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def _note(what: str) -> None:
    """Who waited: the innermost line that is not PyTorch's."""
    frames = [f for f in traceback.extract_stack() if 'site-packages' not in f.filename and f.filename != __file__]
    _waits.append(f'{what} at {frames[-1].filename}:{frames[-1].lineno}, {frames[-1].line}')


def _copy_from(source: Tensor, to: Tensor, non_blocking: bool = False) -> Tensor:
    if source.device != to.device:
        # From memory that is not pinned a copy may wait as well, whatever it is asked for.
        if _is_on_device(source) or not non_blocking or not source.is_pinned():
            _note(f'a copy from {source.device} to {to.device}')
    source, target = (on_host(t) if _is_on_device(t) else t for t in (source, to))
    target.copy_(source)
    return to


def _refuse_a_mix(op, given: list) -> None:
    """As a GPU's operators: of the CPU they take tensors without dimensions only."""
    others = [t for t in given if isinstance(t, Tensor) and t.is_cpu and t.dim() > 0]
    if others and any(map(_is_on_device, given)):
        raise RuntimeError(
            f'Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({op})'
        )


def _looks_at_a_mask(name: str, args: tuple) -> bool:
    if name not in ('index', 'index_put_', '_index_put_impl_'):
        return False
    return any(isinstance(t, Tensor) and t.dtype in (torch.bool, torch.uint8) for t in args[1])


def _run(op, *args, **kwargs):
    """Any operator, on the CPU over the same memory; what it makes anew becomes the device's."""
    name = op.overloadpacket.__name__
    if name in VIEWS:
        return op.redispatch(ON_CPU, *args, **kwargs)
    if name == '_copy_from':
        return _copy_from(*args, **kwargs)
    if name == '_efficientzerotensor':  # has no memory that could be the device's
        op = torch.ops.aten.zeros.default
    _refuse_a_mix(op, pytree.tree_leaves((args, kwargs)))
    if name in WAITS or _looks_at_a_mask(name, args):
        _note(name)
    ours = {}

    def to_host(value):
        if _is_on_device(value):
            host = on_host(value) if value.numel() else torch.empty_like(value, device='cpu')  # which may be resized
            ours[host.untyped_storage().data_ptr()] = value
            return host
        return torch.device('cpu') if isinstance(value, torch.device) else value

    def to_device(value):
        if not isinstance(value, Tensor):
            return value
        base = ours.get(value.untyped_storage().data_ptr()) if value.numel() else None
        if base is None or base.dtype != value.dtype:
            return on_device(value)
        place = value.shape, value.stride(), value.storage_offset()
        return base if place == (base.shape, base.stride(), base.storage_offset()) else _strided(base, *place)

    on_cpu, named = pytree.tree_map(to_host, (args, kwargs))
    named.pop('pin_memory', None)
    with torch._C._ForceDispatchKeyGuard(*NOTHING_WATCHES):
        result = op(*on_cpu, **named)
    result = pytree.tree_map(to_device, result)
    for name, given in kwargs.items():
        if _is_on_device(given) and named[name].shape != given.shape:  # an out that was empty
            made = on_device(named[name])
            torch.ops.aten.set_.source_Tensor.redispatch(ON_CPU, given, made)
    return result


class Module:
    """torch.standin, which PyTorch asks as it asks torch.cuda."""

    is_initialized = is_available = staticmethod(lambda: True)
    current_device, device_count = staticmethod(lambda: 0), staticmethod(lambda: 1)
    _is_in_bad_fork = staticmethod(lambda: False)
    device = staticmethod(lambda device: contextlib.nullcontext())
    manual_seed_all = synchronize = set_rng_state = staticmethod(lambda *args: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.float16, torch.bfloat16])
    get_rng_state = staticmethod(lambda *args: torch.empty(0, dtype=torch.uint8))


def register() -> str:
    """Makes the device known to this process, and gives its name; skips the test where this PyTorch can't.

    Autograd counts the devices at a process's first backward: tools/test.sh runs what is marked stand_in in one of its own.
    """
    if not _registered:
        try:
            from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as setup
        except ImportError:
            pytest.skip('this PyTorch takes no device that is written in Python')
        setup(NAME, Module())
        library = torch.library.Library('_', 'IMPL')
        library.fallback(_run, 'PrivateUse1')
        aten = torch.library.Library('aten', 'IMPL')
        for lazy in ('Negative', 'Conjugate'):  # which would be resolved by a copy, and so for ever
            aten.impl('_copy_from', torch.library.fallthrough_kernel, lazy)
        _registered.extend((library, aten))
    try:
        torch.ones((), device=NAME, requires_grad=True).backward()
    except RuntimeError:
        pytest.skip('a backward has run in this process before the device was known: run pytest -m stand_in')
    return NAME


@contextlib.contextmanager
def waits() -> Iterator[list[str]]:
    """What waits for the device inside: the operator, and the line that called it."""
    before, _waits[:] = _waits[:], []
    noted = []
    try:
        yield noted
    finally:
        noted += _waits
        _waits[:] = before


class Unlaunched:
    """In the place of a kernel: takes what a launch of it would, and computes nothing."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getattr__(self, name: str):
        return getattr(self.kernel, name)

    def __getitem__(self, grid: tuple[int, int, int]):
        def launch(*, num_warps, enable_fp_fusion, **arguments):
            del num_warps, enable_fp_fusion
            assert {*self.arg_names} == arguments.keys(), self.arg_names
            refuse_others(arguments)

        return launch


def refuse_others(arguments: dict) -> None:
    """As Triton refuses a pointer that its GPU can't follow."""
    for name, each in arguments.items():
        if isinstance(each, Tensor) and not _is_on_device(each):
            raise ValueError(f'Pointer argument ({name}) cannot be accessed from Triton ({each.device} tensor?)')


def take_for_a_gpu(monkeypatch) -> str:
    """Has our package take the device for one that Triton compiles for; gives its name."""
    register()
    monkeypatch.setattr(backend, 'GPUS', (*backend.GPUS, NAME))
    return NAME


def compute_without_kernels(monkeypatch) -> str:
    """Runs the host side of the Triton backend on the device: launches write nothing, and the torch backend the values."""
    from focal_plugin.kernels.triton import elementwise, launches, rowwise, selftest
    from tests.gpu.driver import kernels

    name = take_for_a_gpu(monkeypatch)
    for kernel in kernels():
        module = sys.modules[kernel.fn.__module__]
        monkeypatch.setattr(module, kernel.fn.__name__, Unlaunched(kernel))
    monkeypatch.setattr(launches, '_kept', {})
    passed = {(torch.device(NAME, 0), in_one_pass): None for in_one_pass in (False, True)}
    monkeypatch.setattr(selftest, '_verdicts', passed)
    # A storage is allocated beside the operators.
    to = torch.UntypedStorage.to
    moved = lambda storage, device: _moved(storage) if device == name else to(storage, device=device)  # noqa: E731
    monkeypatch.setattr(torch.UntypedStorage, 'to', moved)
    # Inductor makes no code for it.
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend='aot_eager'))
    for module, values in ((elementwise, eager), (rowwise, rowwise_eager)):
        monkeypatch.setattr(module, 'forward', _filled(module.forward, values.forward))
        monkeypatch.setattr(module, 'backward', _filled(module.backward, values.backward))
    monkeypatch.setattr(elementwise, 'total', _filled_total(elementwise.total))
    return name


def _moved(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    return torch.empty(0, dtype=torch.uint8).set_(storage).to(NAME).untyped_storage()


def _filled(function, values):
    """A function of kernels, whose result gets the values of another."""
    running = []  # it may call itself, with copies

    def filled(problem, upstream=None, statistics=None):
        gradient = () if upstream is None else (upstream,)
        scratch = () if statistics is None else (torch.zeros_like(statistics),)
        running.append(function)
        try:
            out = function(problem, *gradient, *scratch)
        finally:
            running.pop()
        if running:
            return out
        with waits(), _disable_current_modes(), torch._C._ForceDispatchKeyGuard(*NOTHING_WATCHES):
            _fill(out, problem, values, gradient, statistics)
        return out

    return filled


def _filled_total(function):
    def filled(problems):
        out = function(problems)
        with waits(), _disable_current_modes(), torch._C._ForceDispatchKeyGuard(*NOTHING_WATCHES):
            parts = [torch.empty_like(out) for _ in problems]
            for part, problem in zip(parts, problems, strict=True):
                _fill(part, problem, eager.forward, (), None)
            out.copy_(sum(parts))
        return out

    return filled


def _fill(out: Tensor, problem, values, gradient: tuple, statistics: Tensor | None) -> None:
    own = eager.of_selected_channel(problem)
    if not gradient and out.dtype == torch.float32:  # in which it has no infinities of the least slopes
        own = own._replace(pred=own.pred.double())
    result = values(own, *gradient, *(() if statistics is None else (statistics,)))
    if problem.channel is None or not gradient:
        out.copy_(result)
    else:
        rows, channels = torch.arange(len(out), device=out.device), problem.channel.clamp(0, out.size(1) - 1)
        out.index_put_((rows, channels), result)
