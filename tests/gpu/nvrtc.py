"""A stand-in for NVIDIA's driver under the cuda backend: NVRTC compiles its kernels to PTX, which the machine runs."""

import pytest
import torch

from focal_plugin import backend
from focal_plugin.kernels import checks
from focal_plugin.kernels.cuda import compiler, driver, launches, selftest
from focal_plugin.kernels.cuda.call import TENSORS
from tests.gpu import machine
from tests.gpu.memory import Region

needs_nvrtc = pytest.mark.skipif(
    backend.INTERPRETING or torch.cuda.is_available() or compiler.path() is None,
    reason="needs NVIDIA's run-time compiler, and no GPU",
)


class Driver:
    """Attributes: launches: (the kernel's name, its PTX, grid) of each launch; edit: what is done to the PTX before."""

    def __init__(self, capability: int):
        self.capability, self.launches, self.edit, self._written = capability, [], lambda text: text, []
        self.tensors: dict[str, torch.Tensor | None] = {}

    def loaded(self, kernel, macros, device):
        return kernel, compiler.compiled(kernel, macros, f'compute_{self.capability}').decode()

    def launch(self, function, grid, threads, call, device):
        kernel, text = function
        regions = [self._region(name, tensor) for name, tensor in self.tensors.items() if tensor is not None]
        self.launches.append((kernel, text, grid))
        machine.launch(self.edit(text), (*grid, 1), [call], regions)
        assert machine.module(text).threads == threads, (machine.module(text).threads, threads)

    def _region(self, name: str, tensor: torch.Tensor) -> Region:
        """What an earlier launch wrote can be read, and no more of it; several write their parts of one sum."""
        if name not in ('out', 'partial'):
            return Region(tensor, name, fresh=False)
        for region in self._written if name == 'partial' else ():
            if region.contains(tensor.data_ptr()):
                return region
        self._written.append(Region(tensor, name, fresh=True))
        return self._written[-1]


def install(monkeypatch, capability: int) -> Driver:
    """Has the cuda backend's own functions run in the machine, CPU tensors taken for a GPU's."""
    made = Driver(capability)
    monkeypatch.setattr(launches, '_kept', {})
    monkeypatch.setattr(driver, 'loaded', made.loaded)
    monkeypatch.setattr(driver, 'launch', made.launch)
    why_not = backend._why_not
    monkeypatch.setattr(backend, '_why_not', lambda name, pred: None if name == 'cuda' else why_not(name, pred))
    monkeypatch.setattr(checks, 'may_look', lambda tensor: False)
    monkeypatch.setattr(selftest, 'require', lambda *_: None)
    call = launches.Launch.__call__

    def announced(self, device, tensors, *scale):
        made.tensors = dict(zip(TENSORS, tensors, strict=True))
        call(self, device, tensors, *scale)

    monkeypatch.setattr(launches.Launch, '__call__', announced)
    return made
