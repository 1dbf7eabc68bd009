"""Counts the 32-byte sectors of global memory that the accesses of a launch touch."""

import collections

import numpy as np

from tests.gpu.memory import Global

SECTOR = 32  # bytes, what an NVIDIA GPU fetches or writes at least


class Sectors:
    """Counts while it is Global.watch.

    Attributes:
        requests: by (argument, 'ld' or 'st'): the sectors that a warp touches by one instruction, summed over all; what
            NVIDIA's profiler calls sectors per request, times the requests. Each store of them reaches the L2 cache.
    """

    def __init__(self):
        self.requests = collections.Counter()
        self._programs = collections.defaultdict(list)

    def __call__(self, memory: Global, name: str, addresses: np.ndarray, blocks: np.ndarray, warps: np.ndarray) -> None:
        if len(addresses):  # an access of a vector is aligned to its size, and so in one sector
            argument = next(each.name for each in memory.regions if each.contains(int(addresses[0])))
            sectors = addresses // np.uint64(SECTOR)
            programs, place = np.unique(np.stack([blocks.astype(np.uint64), sectors]), axis=1, return_inverse=True)
            self.requests[argument, name] += len(np.unique(place.reshape(-1) * 32 + warps))
            self._programs[argument, name].append(programs)

    def programs(self, argument: str, name: str) -> int:
        """The sectors that a program touches by all of its instructions, summed over the programs: what reaches the L2 cache
        of loads, where the L1 cache keeps them for the program."""
        found = self._programs[argument, name]
        return np.unique(np.concatenate(found, axis=1), axis=1).shape[1] if found else 0
