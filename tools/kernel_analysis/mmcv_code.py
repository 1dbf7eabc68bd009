"""mmcv's CUDA kernels in machine code: its installed sources, compiled by nvcc, read as the Triton kernels are."""

import importlib.util
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from tools.kernel_analysis.counts import UNITS
from tools.kernel_analysis.cubin import output
from tools.kernel_analysis.machine_code import executed, parse

SHIM = Path(__file__).parents[2] / 'tests/interop/mmcv_shim'
TRIPS = 8  # of a thread, at 16 million logits: mmcv starts at most 4096 blocks of 512
KINDS = {'forward': 'mmcv_fwd', 'backward': 'mmcv_bwd'}
TYPES = {'f': 'fp32', 'N3c104HalfE': 'fp16'}


def why_not() -> str | None:
    """What is missing, or None."""
    if shutil.which('nvcc') is None:
        return 'there is no nvcc'
    return None if importlib.util.find_spec('mmcv') else 'mmcv is not installed'


def kernels(arch: str) -> Iterator[tuple[dict, dict[str, float]]]:
    """(columns of the kernel, counts per logit) of the sigmoid focal loss, for labels without a class weight.

    `slots/logit` takes the shortest way, on which pow() and the divisions meet no special case; `listing` is what it would
    be if the slow ways were taken too.
    """
    from triton import knobs

    mmcv = Path(importlib.util.find_spec('mmcv').origin).parent / 'ops/csrc/common/cuda'
    includes = [f'-I{folder}' for folder in (SHIM, mmcv, Path(torch.__file__).parent / 'include')]
    with tempfile.TemporaryDirectory() as folder:
        files = f'{SHIM}/kernel.cu', '-o', f'{folder}/kernel.cubin'
        output('nvcc', '-O3', f'-arch={arch}', '-std=c++17', '-w', '-cubin', *includes, *files)
        text = output(knobs.nvidia.nvdisasm.path, '-c', files[-1])
    compiler = f'nvcc {re.search(r"release ([0-9.]+)", output("nvcc", "--version"))[1]}'
    for name, section in re.findall(r'\.section\s+\.text\.(\S+?),(.*?)(?=\n\s*\.section\s|\Z)', text, re.DOTALL):
        found = re.search(r'sigmoid_focal_loss_(forward|backward)_cuda_kernelI(f|N3c104HalfE)E', name)
        if found is None:
            continue
        listing = parse(section)
        # One label, of 64 bits, is loaded for every logit.
        moved = [(int(i.is_load and i.bits == 64), 0) for i in listing.instructions]
        way = executed(listing, moved, (TRIPS, 0))
        units = Counter(listing.instructions[n].unit for n in way)
        counted = {'slots/logit': len(way) / TRIPS, **{f'{unit}/logit': units[unit] / TRIPS for unit in UNITS}}
        head = {'kernel': KINDS[found[1]], 'dtype': TYPES[found[2]], 'arch': arch}
        yield head | {'listing': len(listing.instructions), 'compiler': compiler}, counted
