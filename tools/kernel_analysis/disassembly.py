"""The machine code of a compiled kernel, taken apart, and what it takes of the GPU."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from tools.kernel_analysis import gcn, nvrtc, sass
from tools.kernel_analysis.cubin import resources, said
from tools.kernel_analysis.data_flow import AGREED, TEST, VALUE, Origin, origins
from tools.kernel_analysis.machine_code import Listing, parse


class MachineCode(NamedTuple):
    """Of a compiled kernel.

    Attributes:
        listing: its machine code.
        origins: where each instruction's address and condition come from, by the names of the kernel's parameters.
        threads: of a program.
        constants: what it was compiled for, by name.
        resources: columns; spills are of a thread, its stack included.
    """

    listing: Listing
    origins: list[Origin]
    threads: int
    constants: dict[str, Any]
    resources: dict[str, int]


def machine_code(kernel: Any) -> MachineCode:
    """Of Triton's CompiledKernel, or of a kernel that NVRTC compiled."""
    if isinstance(kernel, nvrtc.Kernel):
        return _of_nvrtc(kernel)
    parameters = {name: of for name, of in kernel.src.signature.items() if of != 'constexpr'}
    if 'amdgcn' in kernel.asm:
        listing, found, used = _of_amd(kernel.asm['amdgcn'], parameters)
    else:
        pointers = lambda offsets: _pointers(parameters, offsets)  # noqa: E731
        listing, found = _of_nvidia(kernel.asm['cubin'], pointers, (AGREED,))
        used = resources(kernel.asm['cubin'])
    names = kernel.src.fn.arg_names
    return MachineCode(
        listing,
        found,
        kernel.metadata.num_warps * kernel.metadata.target.warp_size,
        {names[path[0]]: value for path, value in kernel.src.constants.items()},
        used | {'shared (bytes)': kernel.metadata.shared},
    )


def _of_nvrtc(kernel: nvrtc.Kernel) -> MachineCode:
    def pointers(offsets: list[int]) -> dict[int, str]:  # of the one parameter, a structure
        return {offsets[0] + at: name for at, name in kernel.pointers.items()}

    # Each thread looks at its labels alone.
    listing, found = _of_nvidia(kernel.code, pointers, (AGREED, TEST, VALUE))
    return MachineCode(listing, found, kernel.macros['THREADS'], kernel.macros, resources(kernel.code))


def _of_amd(text: str, parameters: dict[str, str]) -> tuple[Listing, list[Origin], dict[str, int]]:
    listing = parse(text)
    counts = {name: int(value) for name, value in re.findall(r'\.(\w+_count):\s+(\d+)', text)}
    offsets = [int(offset) for offset in re.findall(r'\.offset:\s+(\d+)\s+\.size:', text)]
    found = origins(listing, gcn.steps(listing), _pointers(parameters, offsets), gcn.entry(text))
    spills = 4 * (counts['vgpr_spill_count'] + counts['sgpr_spill_count'])
    return listing, found, {'registers': counts['vgpr_count'], 'shared (bytes)': 0, 'spills (bytes)': spills}


def _of_nvidia(
    code: bytes, pointers: Callable[[list[int]], dict[int, str]], decides: tuple[str, ...]
) -> tuple[Listing, list[Origin]]:
    listing, description = parse(said('nvdisasm', code, '-c')), said('cuobjdump', code, '--dump-elf')
    # The size of the parameters, and where in the constant bank they are, 16 bits each.
    bank = int(re.search(r'EIATTR_PARAM_CBANK\s+Format:.*\s+Value:\s+\w+ 0x(\w+)', description)[1], 16) & 0xFFFF
    places = re.findall(r'Ordinal : 0x(\w+)\s+Offset  : 0x(\w+)', description)
    offsets = [bank + offset for _, offset in sorted((int(n, 16), int(offset, 16)) for n, offset in places)]
    steps = [sass.step(one) for one in listing.instructions]
    return listing, origins(listing, steps, pointers(offsets), decides=decides)


def _pointers(parameters: dict[str, str], offsets: list[int]) -> dict[int, str]:
    """The names of the pointers among the parameters, by offset: Triton's own parameters come after the kernel's."""
    if len(offsets) < len(parameters):
        raise ValueError(f'a kernel of {len(parameters)} parameters was compiled to one of {len(offsets)}')
    return {at: name for at, (name, of) in zip(offsets, parameters.items(), strict=False) if of.startswith('*')}
