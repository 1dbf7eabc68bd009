"""A stand-in for a GPU's driver under Triton's own JIT and compiler, whose launches run in the machine."""

import collections
import hashlib
import importlib.util
import itertools

import pytest
import torch

from focal_plugin import backend
from tests.gpu import machine
from tests.gpu.memory import Region

needs_compiler = pytest.mark.skipif(
    backend.INTERPRETING or torch.cuda.is_available() or importlib.util.find_spec('triton') is None,
    reason='needs the compiler of Triton, and no GPU',
)
OUTPUTS = ('out_ptr', 'partial_ptr')


class StandIn:
    """What Triton asks of a driver, of a GPU that is not there."""

    def __init__(self, capability: int):
        self.capability, self.utils = capability, self

    def get_device_properties(self, device):
        return {'max_shared_mem': 232448 if self.capability == 90 else 166912}

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget('cuda', self.capability, 32)

    def get_current_device(self):
        return self.capability  # kernels are kept by device

    def get_current_stream(self, device):
        return 0


class Driver(StandIn):
    """Compiles for a compute capability and loads PTX, as the stage that would assemble it is left out.

    Attributes:
        launches: (the kernel's PTX, grid, arguments, tensors by the names of the kernel's arguments) of each launch.
        edit: what is done to the PTX before it is run.
    """

    def __init__(self, capability: int):
        super().__init__(capability)
        self.launches, self.tensors = [], ()
        self.edit = lambda text: text
        self._loaded, self._handles, self._written = {}, itertools.count(1), {}

    def launcher_cls(self, source, metadata):
        names = source.fn.arg_names
        passed = [i for i, name in enumerate(names) if source.signature[name] != 'constexpr']

        def launcher(x, y, z, stream, function, packed, info, enter, leave, *arguments):
            text, shared = self._loaded[function]
            tensors = dict(zip(names, self.tensors, strict=False))
            self.run(text, (x, y, z), [arguments[i] for i in passed], tensors, shared)

        return launcher

    def run(self, text: str, grid: tuple, given: list, tensors: dict, shared: int) -> None:
        """Has the machine run a kernel's PTX."""
        given = [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in given]
        given += [0] * (len(machine.module(text).types) - len(given))  # scratch memory, of which none is used
        regions = [self._region(name, each) for name, each in tensors.items() if each is not None]
        self.launches.append((text, grid, given, tensors))
        machine.launch(self.edit(text), grid, given, regions, shared)

    def warmed_up(self, launch, tensors, **changing) -> None:
        """A launch by a Triton whose compiler has no hook: it compiles the kernel whole, and launches nothing."""
        values = {**tensors, **changing, **launch.numbers, **launch.constants}
        kernel = launch.kernel.run(
            **values, grid=launch.grid, warmup=True, num_warps=launch.warps, enable_fp_fusion=True
        )
        given = [
            values[each.name]
            for each in launch.kernel.params
            if not each.is_constexpr and not _is_constant(values[each.name], each.do_not_specialize)
        ]
        self.run(kernel.asm['ptx'], launch.grid, given, tensors, kernel.metadata.shared)

    def _region(self, name: str, tensor: torch.Tensor) -> Region:
        """What an earlier launch wrote can be read, and no more of it."""
        if name in OUTPUTS:
            region, earlier = Region(tensor, name, fresh=True), self._written.get(tensor.data_ptr())
            if earlier is not None and region.readable.shape == earlier.readable.shape:
                region.readable = earlier.readable  # a launch of a sum writes its part
            self._written[tensor.data_ptr()] = region
            return region
        if tensor.data_ptr() in self._written:
            region, earlier = Region(tensor, name, fresh=False), self._written[tensor.data_ptr()]
            if region.readable.shape == earlier.readable.shape:
                region.readable = earlier.readable
            return region
        return Region(tensor, name, fresh=False)

    def load_binary(self, name, binary, shared, device):
        handle = next(self._handles)
        self._loaded[handle] = binary.decode(), shared
        return None, handle, 32, 0, 1024  # no module that would have to be unloaded


def _is_constant(value, always_passed: bool) -> bool:
    """Whether Triton compiles an argument's value into the kernel in place of passing it."""
    return value is None or (type(value) is int and value == 1 and not always_passed)


def unassembled(*stages):
    """Triton's hook into its compiler: PTX stays PTX. Without arguments it gives what kernels compiled so are kept under."""
    if not stages:
        return 'unassembled', hashlib.sha256(b'unassembled').hexdigest()
    stages[1]['cubin'] = lambda ptx, metadata: ptx.encode()


_drivers: dict[int, Driver] = {}
_caches: dict[int, list] = {}


def kernels() -> tuple:
    from focal_plugin.kernels.triton import flat, rowwise, sums, tiles

    return tiles.tiled_kernel, flat.flat_kernel, rowwise.rowwise_kernel, sums.sum_kernel


def binders() -> list:
    """What Triton's JIT keeps for each kernel, nothing compiled yet."""
    return [collections.defaultdict(kernel.create_binder) for kernel in kernels()]


def take_for_a_gpu(monkeypatch, driver: StandIn, caches: list, relaunches: bool, of_cpu: bool = True) -> None:
    """Has our package's own functions launch through a driver, CPU tensors taken for a GPU's unless there is a device."""
    import triton

    from focal_plugin.kernels import checks
    from focal_plugin.kernels.triton import features, launches, selftest

    active = '_active' if hasattr(triton.runtime.driver, '_active') else 'active'
    monkeypatch.setattr(triton.runtime.driver, active, driver)
    for kernel, cache in zip(kernels(), caches, strict=True):
        if hasattr(kernel, 'device_caches'):
            monkeypatch.setattr(kernel, 'device_caches', cache)
    monkeypatch.setattr(launches, '_kept', {})
    monkeypatch.setattr(features, 'RELAUNCHES', relaunches)
    if not of_cpu:
        monkeypatch.setattr(selftest, '_verdicts', {})
        return
    monkeypatch.setattr(backend, 'INTERPRETING', True)  # which CPU tensors are let through for
    monkeypatch.setattr(selftest, 'require', lambda *_: None)
    monkeypatch.setattr(checks, 'may_look', lambda tensor: False)


def install(monkeypatch, capability: int, relaunches: bool = False, of_cpu: bool = True) -> Driver:
    """Has our package's own functions run in the machine."""
    import triton

    from focal_plugin.kernels.triton import launches

    driver = _drivers.setdefault(capability, Driver(capability))
    driver.launches, driver._written, driver.edit = [], {}, lambda text: text
    if capability not in _caches:  # compiled once for all tests
        _caches[capability] = binders()
    has_hook = hasattr(triton, 'knobs') and hasattr(triton.knobs.runtime, 'add_stages_inspection_hook')
    if has_hook:
        monkeypatch.setattr(triton.knobs.runtime, 'add_stages_inspection_hook', unassembled)
    take_for_a_gpu(monkeypatch, driver, _caches[capability], relaunches, of_cpu)
    call = launches.Launch.__call__

    def announced(self, tensors, **changing):
        driver.tensors = tensors.values()
        call(self, tensors, **changing)

    def warmed_up(self, tensors, **changing):
        driver.warmed_up(self, tensors, **changing)

    monkeypatch.setattr(launches.Launch, '__call__', announced if has_hook else warmed_up)
    return driver
