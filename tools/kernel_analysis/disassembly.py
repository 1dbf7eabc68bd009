"""The machine code of a compiled kernel, taken apart, and what it takes of the GPU."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tools.kernel_analysis import gcn, sass
from tools.kernel_analysis.data_flow import Origin, origins
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
    """Of Triton's CompiledKernel."""
    read = _of_amd if 'amdgcn' in kernel.asm else _of_nvidia
    parameters = {name: of for name, of in kernel.src.signature.items() if of != 'constexpr'}
    listing, found, registers, spills = read(kernel.asm, parameters)
    names = kernel.src.fn.arg_names
    return MachineCode(
        listing,
        found,
        kernel.metadata.num_warps * kernel.metadata.target.warp_size,
        {names[path[0]]: value for path, value in kernel.src.constants.items()},
        {'registers': registers, 'shared (bytes)': kernel.metadata.shared, 'spills (bytes)': spills},
    )


def _of_amd(asm: dict, parameters: dict[str, str]) -> tuple[Listing, list[Origin], int, int]:
    text = asm['amdgcn']
    listing = parse(text)
    counts = {name: int(value) for name, value in re.findall(r'\.(\w+_count):\s+(\d+)', text)}
    offsets = [int(offset) for offset in re.findall(r'\.offset:\s+(\d+)\s+\.size:', text)]
    found = origins(listing, gcn.steps(listing), _pointers(parameters, offsets), gcn.entry(text))
    return listing, found, counts['vgpr_count'], 4 * (counts['vgpr_spill_count'] + counts['sgpr_spill_count'])


def _of_nvidia(asm: dict, parameters: dict[str, str]) -> tuple[Listing, list[Origin], int, int]:
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, 'kernel.cubin')
        cubin.write_bytes(asm['cubin'])
        listing = parse(output(knobs.nvidia.nvdisasm.path, '-c', cubin))
        description = output(knobs.nvidia.cuobjdump.path, '--dump-elf', '--dump-resource-usage', cubin)
    # The size of the parameters, and where in the constant bank they are, 16 bits each.
    bank = int(re.search(r'EIATTR_PARAM_CBANK\s+Format:.*\s+Value:\s+\w+ 0x(\w+)', description)[1], 16) & 0xFFFF
    places = re.findall(r'Ordinal : 0x(\w+)\s+Offset  : 0x(\w+)', description)
    offsets = [bank + offset for _, offset in sorted((int(n, 16), int(offset, 16)) for n, offset in places)]
    steps = [sass.step(one) for one in listing.instructions]
    registers, stack, local = re.search(r'REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)', description).groups()
    found = origins(listing, steps, _pointers(parameters, offsets))
    return listing, found, int(registers), int(stack) + int(local)


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _pointers(parameters: dict[str, str], offsets: list[int]) -> dict[int, str]:
    """The names of the pointers among the parameters, by offset: Triton's own parameters come after the kernel's."""
    if len(offsets) < len(parameters):
        raise ValueError(f'a kernel of {len(parameters)} parameters was compiled to one of {len(offsets)}')
    return {at: name for at, (name, of) in zip(offsets, parameters.items(), strict=False) if of.startswith('*')}
