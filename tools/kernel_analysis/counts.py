"""What a thread executes of a kernel per logit.

Which accesses to memory are those of logits and of gradients, and where a tile with a positive (or a dense target that isn't
0) goes another way than one without, is told by where addresses and conditions come from in the machine code.
"""

import itertools
from collections import Counter

from tools.kernel_analysis.data_flow import Origin
from tools.kernel_analysis.machine_code import Instruction, Listing, executed

LOGITS, GRADIENTS = 'x_ptr', 'out_ptr'  # parameters of the kernels
TARGETS = {'label_ptr', 'target_ptr'}  # labels, or dense ones
UNITS = ('FP32', 'integer', 'MUFU')


def count(
    listing: Listing, origins: list[Origin], logit_bits: int, slots: int, logits: float, *, stores: bool,
    positives: tuple[float, ...] = (0.0,),
) -> dict[str, float]:  # fmt: skip
    """What a thread executes per logit, read off a listing: the columns before they are rounded and called predicted.

    Args:
        listing: the kernel.
        origins: of its instructions.
        logit_bits: width of a logit.
        slots: places of the tile, of one thread; logits: how many of them are logits.
        stores: whether it stores a gradient in each place.
        positives: the share of the threads that go the way of a positive, for each of the branches that lead there one
            after the other; the last share is that of all that follow.

    Raises:
        ValueError: an access may be one of logits or of something else, or there is no way through the code.
    """
    moved = [_moved(one, origin, logit_bits, stores) for one, origin in zip(listing.instructions, origins, strict=True)]
    ways = _ways(listing, origins, moved, (slots, slots * stores))
    shorter = ways[0]
    widths = [listing.instructions[n].bits for n in shorter if any(moved[n])]
    shares = [1.0, *positives, *[positives[-1]] * len(ways), 0.0][: len(ways)]
    weights = [share - further for share, further in zip(shares, [*shares[1:], 0.0], strict=True)]

    def mean(counts: list[int]) -> float:
        return sum(weight * each for weight, each in zip(weights, counts, strict=True)) / logits

    units = [Counter(listing.instructions[n].unit for n in way) for way in ways]
    return {
        'widest access (bits)': max(widths),
        'narrowest access (bits)': min(widths),
        'slots/logit': mean([len(way) for way in ways]),
        'slots/logit without a positive': len(shorter) / logits,
        **{f'{unit}/logit': mean([counted[unit] for counted in units]) for unit in UNITS},
    }


def _ways(
    listing: Listing, origins: list[Origin], moved: list[tuple[int, int]], total: tuple[int, int]
) -> list[list[int]]:
    """The shortest way, and longer ones: each goes the other way where the targets first decided on the one before it."""
    ways, avoided = [executed(listing, moved, total)], {}
    while True:
        decided = {
            n: step for n, *step in itertools.pairwise(ways[-1]) if TARGETS & origins[n].deciders and n not in avoided
        }
        if not decided:
            return ways
        avoided |= decided
        try:
            ways.append(executed(listing, moved, total, {(n, *step) for n, step in avoided.items()}))
        except ValueError:  # there is no other way back from a positive
            return ways


def _moved(one: Instruction, origin: Origin, logit_bits: int, stores: bool) -> tuple[int, int]:
    """Logits of the tile that an instruction loads and gradients that it stores."""
    for applies, pointer in ((one.is_load, LOGITS), (one.is_store and stores, GRADIENTS)):
        if applies and pointer in origin.pointers:
            if len(origin.pointers) > 1:
                pointers = ' or '.join(sorted(origin.pointers))
                raise ValueError(f'{one.name} {one.operands} may use {pointers}: unknown data flow')
            # A logit in the place that a target names is loaded once more, beside the tile's.
            n = 0 if TARGETS & origin.indices else one.bits // logit_bits
            return (n, 0) if one.is_load else (0, n)
    return 0, 0
