"""What the cuda backend hands NVIDIA's driver, and how little of the package runs for it, seen through a stand-in."""

import ctypes
import sys

import pytest
import torch

from focal_plugin import arguments
from focal_plugin.kernels.cuda import compiler, driver, elementwise, launches, rowwise, selftest
from focal_plugin.kernels.cuda.call import OPERANDS, TENSORS, Call, Packed
from focal_plugin.tensors import FLOATS, INTEGERS
from tests.kernels.problems import focal_problem

FRAMES = 45
"""Of the package, of a forward and a backward like earlier ones: three launches; to Python 3.11 a comprehension is one."""


class Library:
    """In the place of the driver's library.

    Attributes:
        given: (grid, threads, Call) of each launch.
        loaded: each machine code that was loaded.
    """

    def __init__(self):
        self.given, self.loaded = [], []

    def cuLaunchKernel(self, function, x, y, z, threads, _y, _z, shared, stream, parameters, extra):
        address = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))[0]
        self.given.append(((x, y, z), threads, Call.from_buffer_copy(ctypes.string_at(address, ctypes.sizeof(Call)))))
        return 0

    def cuModuleLoadData(self, module, code):
        self.loaded.append(code)
        return 0

    def cuModuleGetFunction(self, function, module, name):
        return 0

    def cuFuncGetAttribute(self, value, attribute, function):
        return 0

    def cuGetErrorString(self, status, said):
        said._obj.value = b'what went wrong'


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setattr(driver, '_cuda', lambda: found)
    monkeypatch.setattr(driver, 'loaded', lambda kernel, macros, device: ctypes.c_void_p(1))
    monkeypatch.setattr(launches, '_kept', {})
    monkeypatch.setattr(torch._C, '_cuda_getCurrentRawStream', lambda index: 0, raising=False)
    return found


def problem(**changed):
    pred, target = torch.randn(300, 80), torch.randint(0, 81, (300,))
    return focal_problem(
        pred, target, 'cuda', weight=torch.rand(300, 1).expand(300, 80), avg_factor=torch.tensor(3.0), **changed
    )


def step(given, family=elementwise) -> None:
    family.forward(given)
    family.backward(given, torch.ones(()))


def pointers(call: Call) -> dict[str, int]:
    return {name: getattr(call, name).data if name in OPERANDS else getattr(call, name) for name in TENSORS}


@pytest.mark.parametrize('family', (elementwise, rowwise))
def test_the_tensors_of_a_problem_are_handed_over(library, family):
    given = problem(scale=0.5)
    step(given, family)
    forward, add, backward = (call for _, _, call in library.given)
    for call in (forward, backward):
        found = pointers(call)
        named = {'x': given.pred, 'target': given.target, 'weight': given.weight, 'avg': given.avg_factor}
        assert {name: found[name] for name in named} == {name: each.data_ptr() for name, each in named.items()}
        assert (found['score'], found['channel'], found['per_class']) == (None, None, None)
        assert (call.rows, call.classes, call.scale, call.x.row[2], call.x.step) == (300, 80, 0.5, 80, 1)
        assert list(call.parameter)[:3] == given.parameters
    assert forward.partial == add.partial and add.rows == library.given[0][0][0]
    assert backward.out.data is not None and backward.upstream.data is not None and forward.out.data is None


def test_a_second_launch_is_given_what_the_first_was(library):
    given = problem()
    step(given)
    step(given)
    first, second = library.given[:3], library.given[3:]
    written = {'out', 'partial', 'upstream'}  # allocated anew
    for (grid, threads, call), (grid_again, threads_again, again) in zip(first, second, strict=True):
        assert (grid, threads) == (grid_again, threads_again)
        assert all(value == pointers(again)[name] for name, value in pointers(call).items() if name not in written)
        assert bytes(call)[Call.rows.offset :] == bytes(again)[Call.rows.offset :]


def test_a_kernel_is_loaded_once_for_images_of_many_sizes(monkeypatch):
    found = Library()
    driver._loaded.cache_clear()
    monkeypatch.setattr(driver, '_cuda', lambda: found)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (9, 0))
    monkeypatch.setattr(compiler, 'arch_of', 'sm_{}{}'.format)
    monkeypatch.setattr(compiler, 'compiled', lambda kernel, macros, arch: repr((kernel, macros)).encode())
    monkeypatch.setattr(launches, '_kept', {})
    monkeypatch.setattr(torch._C, '_cuda_getCurrentRawStream', lambda index: 0, raising=False)
    for rows in (300, 304, 308, 312):
        step(focal_problem(torch.randn(rows, 80), torch.randint(0, 81, (rows,)), 'cuda'))
    driver._loaded.cache_clear()
    assert len(found.given) == 4 * 3 and len(found.loaded) == len(set(found.loaded)) == 3


@pytest.mark.parametrize(
    ('status', 'kind'), [(2, torch.cuda.OutOfMemoryError), (209, RuntimeError)], ids=['out of memory', 'another']
)
def test_an_error_of_the_driver_is_said(library, monkeypatch, status, kind):
    monkeypatch.setattr(library, 'cuLaunchKernel', lambda *_: status)
    with pytest.raises(RuntimeError, match=rf'^CUDA: what went wrong \({status}\)$') as raised:
        step(problem())
    assert raised.type is kind


def test_memory_that_ran_out_is_no_verdict_on_a_device(library, monkeypatch):
    monkeypatch.setattr(library, 'cuLaunchKernel', lambda *_: 2)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        selftest._verdict(torch.device('cpu'), False)


@pytest.mark.parametrize('dtype', (*FLOATS, *INTEGERS), ids=str)
def test_a_divisor_of_any_dtype_is_one_that_the_kernels_read(dtype):
    found = arguments.canonical_avg_factor(torch.zeros(1), torch.tensor(5, dtype=dtype))
    assert found == 5 and found.dtype in launches.TYPES


def test_a_call_is_packed_as_the_structure_lies():
    call = Call(rows=3, classes=5, ignore_index=-7, channels=9)
    call.x.row[:], call.out.step, call.parameter[5] = (11, 12, 13), 14, 0.25
    packed = Packed(call)(range(1, len(TENSORS) + 1), 0.5)
    for at, name in enumerate(TENSORS, 1):
        if name in OPERANDS:
            getattr(call, name).data = at
        else:
            setattr(call, name, at)
    call.scale = 0.5
    assert packed == bytes(call)


def test_few_frames_lie_between_the_backend_and_the_driver(library, monkeypatch):
    given, upstream = problem(), torch.ones(())
    step(given)
    monkeypatch.setattr(library, 'cuLaunchKernel', ctypes.pythonapi.Py_IsInitialized)  # no frame of Python's
    library.cuLaunchKernel.restype = lambda status: 0
    frames, before = [], sys.getprofile()

    def note(frame, event, argument):
        if event == 'call' and 'focal_plugin' in frame.f_code.co_filename:
            frames.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        elementwise.forward(given)
        elementwise.backward(given, upstream)
    finally:
        sys.setprofile(before)
    assert len(frames) <= FRAMES, frames
