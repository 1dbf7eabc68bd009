"""What a thread executes of a kernel per logit.

Which accesses to memory are those of logits and of gradients, and where a tile with a positive goes another way than one
without, is told by where addresses and conditions come from in the machine code.
"""

import itertools
from collections import Counter

from tools.kernel_analysis.data_flow import Origin
from tools.kernel_analysis.machine_code import Instruction, Listing, executed

LOGITS, GRADIENTS, LABELS = 'x_ptr', 'out_ptr', 'label_ptr'  # parameters of the kernels
UNITS = ('FP32', 'integer', 'MUFU')


def count(
    listing: Listing, origins: list[Origin], logit_bits: int, slots: int, logits: float, *, stores: bool,
    positive_tiles: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """What a thread executes per logit, read off a listing: the columns before they are rounded and called predicted.

    Args:
        listing: the kernel.
        origins: of its instructions.
        logit_bits: width of a logit.
        slots: places of the tile, of one thread; logits: how many of them are logits.
        stores: whether it stores a gradient in each place.
        positive_tiles: the share of tiles with a positive.

    Raises:
        ValueError: an access may be one of logits or of something else, or there is no way through the code.
    """
    moved = [_moved(one, origin, logit_bits, stores) for one, origin in zip(listing.instructions, origins, strict=True)]
    total = slots, slots * stores
    shorter = executed(listing, moved, total)
    # All threads of a tile go one of two ways by what they found in its labels. The longer one is that of a positive.
    decided = {step for step in itertools.pairwise(shorter) if LABELS in origins[step[0]].deciders}
    ways = [shorter, executed(listing, moved, total, decided)] if decided else [shorter, shorter]
    widths = [listing.instructions[n].bits for n in shorter if any(moved[n])]

    def mean(counts: list[int]) -> float:
        return ((1 - positive_tiles) * counts[0] + positive_tiles * counts[1]) / logits

    units = [Counter(listing.instructions[n].unit for n in way) for way in ways]
    return {
        'widest access (bits)': max(widths),
        'narrowest access (bits)': min(widths),
        'slots/logit': mean([len(way) for way in ways]),
        'slots/logit without a positive': len(shorter) / logits,
        **{f'{unit}/logit': mean([counted[unit] for counted in units]) for unit in UNITS},
    }


def _moved(one: Instruction, origin: Origin, logit_bits: int, stores: bool) -> tuple[int, int]:
    """Logits of the tile that an instruction loads and gradients that it stores."""
    for applies, pointer in ((one.is_load, LOGITS), (one.is_store and stores, GRADIENTS)):
        if applies and pointer in origin.pointers:
            if len(origin.pointers) > 1:
                pointers = ' or '.join(sorted(origin.pointers))
                raise ValueError(f'{one.name} {one.operands} may use {pointers}: unknown data flow')
            # A logit in the place that a label names is loaded once more, beside the tile's.
            n = 0 if LABELS in origin.indices else one.bits // logit_bits
            return (n, 0) if one.is_load else (0, n)
    return 0, 0
