"""What the cuda backend launches for a loss as heads call it, compiled by NVRTC for a GPU that need not be there."""

import contextlib
from typing import Any, NamedTuple
from unittest import mock

import torch

from focal_plugin.kernels.cuda import compiler, driver, launches, selftest
from focal_plugin.kernels.cuda.call import TENSORS, Call
from tools.kernel_analysis.cubin import resources
from tools.kernel_analysis.launches import run, typical_problem


class Kernel(NamedTuple):
    """Attributes: name, macros: what it was compiled from; code: the CUBIN; call: what it is launched with."""

    name: str
    macros: dict[str, Any]
    code: bytes
    call: Call

    @property
    def pointers(self) -> dict[int, str]:
        """The pointers in the call, by their offset, under the names that they have among the Triton kernels' parameters."""
        names = {name: f'{name}_ptr' for name in TENSORS}
        names['target'] = 'label_ptr' if self.macros.get('LABELS') else 'target_ptr'
        return {getattr(Call, field).offset: name for field, name in names.items()}


def compiled(kernel: str, dtype: torch.dtype, classes: int, arch: str) -> list[Kernel]:
    """The kernels that launches.compiled gives, of the cuda backend, compiled in place of being launched."""
    problem = typical_problem(kernel, dtype, classes)._replace(backend='cuda')
    kernels: list[Kernel] = []

    def launch(function: tuple, grid: tuple, threads: int, call: bytes, device: torch.device) -> None:
        name, macros = function
        code = compiler.compiled(name, macros, arch)
        while fewer := driver.with_fewer_blocks(macros, resources(code)['spills (bytes)']):
            macros, code = fewer, compiler.compiled(name, fewer, arch)
        kernels.append(Kernel(name, macros, code, Call.from_buffer_copy(call)))

    stand_ins = {
        driver: {'loaded': lambda name, macros, device: (name, macros), 'launch': launch},
        launches: {'_kept': {}},
        selftest: {'require': lambda *_: None},
    }
    with contextlib.ExitStack() as patched:
        for module, functions in stand_ins.items():
            patched.enter_context(mock.patch.multiple(module, **functions))
        run(kernel, problem, gathers=False)
    return kernels
