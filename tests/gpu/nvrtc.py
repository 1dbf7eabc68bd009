"""A stand-in for NVIDIA's driver under the cuda backend: NVRTC compiles its kernels to PTX, which the machine runs."""

import torch

from focal_plugin.kernels.cuda import compiler, driver, launches, selftest
from focal_plugin.ops import library
from tests.gpu import machine
from tests.gpu.memory import Region


class Driver:
    """Attributes: launches: (the kernel's name, its PTX, grid) of each launch; edit: what is done to the PTX before."""

    def __init__(self, capability: int):
        self.capability, self.launches, self.edit, self._written = capability, [], lambda text: text, {}
        self.tensors: dict[str, torch.Tensor | None] = {}

    def loaded(self, kernel, macros, device):
        return kernel, compiler.compiled(kernel, macros, f'compute_{self.capability}').decode()

    def launch(self, function, grid, threads, call, device):
        kernel, text = function
        regions = [self._region(name, tensor) for name, tensor in self.tensors.items() if tensor is not None]
        self.launches.append((kernel, text, grid))
        machine.launch(self.edit(text), (*grid, 1), [bytes(call)], regions)
        assert machine.module(text).threads == threads, (machine.module(text).threads, threads)

    def _region(self, name, tensor):
        fresh = name == 'out' or (name == 'partial' and tensor.data_ptr() not in self._written)
        region, earlier = Region(tensor, name, fresh=fresh), self._written.get(tensor.data_ptr())
        if not fresh and earlier is not None and region.readable.shape == earlier.readable.shape:
            region.readable = earlier.readable
        if fresh:
            self._written[tensor.data_ptr()] = region
        return region


def install(monkeypatch, capability: int) -> Driver:
    """Has the cuda backend's own functions run in the machine, CPU tensors taken for a GPU's."""
    from focal_plugin import backend
    from focal_plugin.kernels import checks

    made = Driver(capability)
    monkeypatch.setattr(launches, '_kept', {})
    monkeypatch.setattr(driver, 'loaded', made.loaded)
    monkeypatch.setattr(driver, 'launch', made.launch)
    monkeypatch.setattr(backend, '_why_not', lambda name, pred: None)
    monkeypatch.setattr(checks, 'may_look', lambda tensor: False)
    monkeypatch.setattr(selftest, 'require', lambda pred: None)
    library._require.cache_clear()
    call = launches.Launch.__call__

    def announced(self, device, tensors, **numbers):
        made.tensors = dict(tensors)
        call(self, device, tensors, **numbers)

    monkeypatch.setattr(launches.Launch, '__call__', announced)
    return made
