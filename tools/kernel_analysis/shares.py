"""What a thread has of the logits, by how its kernel walks them."""

import math
from typing import Any, NamedTuple

from tools.kernel_analysis.disassembly import MachineCode
from tools.kernel_analysis.launches import MAPS, MASKS, PIXELS, form_of, spec_of
from tools.kernel_analysis.nvrtc import Kernel

POSITIVE = 1 / 500  # rows with a positive
# Tiles of 1024 values of a heat map that are not all 0, by heat_maps.py; of the smaller groups of a warp it is less.
HEAT_MAPS = 0.0068


class Share(NamedTuple):
    """Attributes.

    slots: places for logits of a thread; logits: how many of them are logits.
    positives: the share of the threads that go the way of a positive (or of a dense target that isn't 0), those included
        whose neighbours do, for each branch on it.
    """

    slots: int
    logits: float
    positives: tuple[float, ...]


def share(name: str, kernel: Any, code: MachineCode, classes: int) -> Share:
    """Of a kernel of a variant, of masks or of maps.

    Raises:
        ValueError: it reads rows so long several times, which is not counted.
    """
    if not code.constants.get('HELD', True):
        raise ValueError(f'{name}, --classes {classes}: it reads rows so long several times, which is not counted')
    found = _of_nvrtc(kernel, classes) if isinstance(kernel, Kernel) else _of_triton(name, code, classes)
    is_heat_map = form_of(name) == 'dense' and name != MASKS and not spec_of(name).scored
    return found._replace(positives=(HEAT_MAPS,)) if is_heat_map else found


def _of_triton(name: str, code: MachineCode, classes: int) -> Share:
    constants = code.constants
    is_flat = 'GROUPS' in constants
    rows, width = (constants[n] for n in (('GROUPS', 'WIDTH') if is_flat else ('BLOCK_R', 'BLOCK_C')))
    along = PIXELS if name == MASKS else classes
    tile, used = rows * width, 1 if is_flat else along / width
    plane = math.prod(MAPS.get(name, ()))
    filled = plane / (-(-plane // rows) * rows) if name in MAPS else 1  # of a plane's programs
    return Share(
        slots=tile * -int(-used // 1) // code.threads,
        logits=tile * used * filled / code.threads,
        positives=(1 - (1 - POSITIVE) ** (tile / classes + 1 if is_flat else rows),),
    )


def _of_nvrtc(kernel: Kernel, classes: int) -> Share:
    macros, call = kernel.macros, kernel.call
    lanes, items = macros['LANES'], macros.get('ITEMS')
    if kernel.name == 'rowwise':  # nearly all rows have a label
        return Share(slots=macros['HELD'], logits=classes / lanes, positives=(1.0,))
    at_once = 32 * macros['NEIGHBOURS']  # logits of a warp
    positive = 1 - (1 - POSITIVE / classes) ** at_once
    if not macros['ALONG_ROWS']:
        return Share(slots=items, logits=items, positives=(positive,))
    of_block, spans = macros['THREADS'] // lanes * items, -(-call.classes // call.span)
    filled = call.n2 / (-(-call.n2 // of_block) * of_block) * call.classes / (spans * call.span)
    return Share(
        slots=items * -(-call.span // lanes),
        logits=items * call.span / lanes * filled,
        positives=(1 - (1 - POSITIVE) ** (at_once / lanes), positive),  # of a positive in the rows, and of this class
    )
