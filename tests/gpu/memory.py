"""Global memory, which is the tensors' own, and shared memory; neither gives what nobody wrote, or lets threads race."""

import ctypes

import numpy as np
import torch

UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Fault(Exception):
    """What a GPU would stop at, or go on from with a wrong result."""


class Region:
    """The memory that a tensor reaches.

    Attributes:
        data: its bytes from the multiple of 16 below its first, so that all aligned accesses have an index.
        readable, writable: for each of these bytes 0 or 1; what lies between the elements is neither.
    """

    def __init__(self, tensor: torch.Tensor, name: str, fresh: bool):
        self.name, self.fresh, self.keeps = name, fresh, tensor.untyped_storage()  # no later one gets this address
        extent = sum((n - 1) * abs(s) for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        extent *= tensor.element_size() * (tensor.numel() > 0)
        self.base = tensor.data_ptr() // 16 * 16
        lead = tensor.data_ptr() - self.base
        size = -(-(lead + extent) // 16) * 16
        self.data = np.frombuffer((ctypes.c_ubyte * size).from_address(self.base), np.uint8)
        reached = torch.zeros(size, dtype=torch.uint8)
        width = tensor.element_size()
        for byte in range(width):
            strides = [s * width for s in tensor.stride()]
            torch.as_strided(reached, tensor.shape, strides, lead + byte).fill_(1)
        reached = reached.numpy()
        self.readable, self.writable = (np.zeros_like(reached), reached) if fresh else (reached, np.zeros_like(reached))

    def allows(self, addresses: np.ndarray, size: int, writes: bool) -> np.ndarray:
        """Which elements may be read, or written."""
        allowed = (self.writable if writes else self.readable).view(UNSIGNED[size])
        index = (addresses - np.uint64(self.base)) // np.uint64(size)  # below the base it wraps around
        inside = index < len(allowed)
        whole = UNSIGNED[size](0x0101010101010101 & (1 << 8 * size) - 1)
        return inside & (allowed[np.where(inside, index, 0).astype(np.int64)] == whole) if len(allowed) else inside

    def contains(self, address: int) -> bool:
        return 0 <= address - self.base < len(self.data)

    def index(self, addresses: np.ndarray, size: int) -> np.ndarray:
        return ((addresses - np.uint64(self.base)) // np.uint64(size)).astype(np.int64)


class Global:
    """The tensors of a launch. Each address is looked for in all of them, as they may overlap.

    Attributes:
        watch: called, if not None, with what an instruction reads or writes at a time: the memory, 'ld' or 'st', and each
            access's address, block and warp.
    """

    watch = None

    def __init__(self, regions: list[Region]):
        self.regions = regions

    def _parts(self, addresses: np.ndarray, size: int, writes: bool):
        """(region, which of the addresses it serves)"""
        missing = np.ones(len(addresses), bool)
        for region in self.regions:
            part = missing & region.allows(addresses, size, writes)
            if part.any():
                yield region, part
                missing &= ~part
                if not missing.any():
                    return
        address = addresses[missing][0]
        raise Fault(f'{"write to" if writes else "read of"} {size} bytes at {self._where(int(address))}')

    def _where(self, address: int) -> str:
        for region in self.regions:
            if region.contains(address):
                offset = address - region.base
                state = 'not written' if region.fresh else 'an input'
                reached = (region.writable | region.readable)[offset]
                return f'{region.name} + {offset}, {state if reached else "between or beyond its elements"}'
        return f'{address:#x}, outside of every tensor'

    def load(self, addresses: np.ndarray, size: int) -> np.ndarray:
        result = np.empty(len(addresses), UNSIGNED[size])
        for region, part in self._parts(addresses, size, False):
            result[part] = region.data.view(UNSIGNED[size])[region.index(addresses[part], size)]
        return result

    def store(self, addresses: np.ndarray, size: int, values: np.ndarray) -> None:
        for region, part in self._parts(addresses, size, True):
            index, given = region.index(addresses[part], size), values[part]
            if region.readable.view(UNSIGNED[size])[index].any() or len(np.unique(index)) < len(index):
                raise Fault(f'a second write to one place of {region.name}')
            region.data.view(UNSIGNED[size])[index] = given
            region.readable.view(UNSIGNED[size])[index] = 0x0101010101010101 & (1 << 8 * size) - 1


SEVERAL = 63  # warps, of which a block has fewer


class Shared:
    """The shared memory of some blocks, and who used each byte since the block's last barrier.

    All lanes step together here, so that a missing barrier changes no result: it shows as one warp's access to a byte
    that another warp wrote, or writes over, with no barrier between them.
    """

    BASE = 1024  # so that address 0 is none

    def __init__(self, blocks: int, size: int):
        self.size = -(-size // 16) * 16
        self.data = np.zeros(blocks * self.size, np.uint8)
        # 64 times the number of the block's barriers, plus the warp; -1 for none.
        self.writer, self.reader = (np.full(blocks * self.size, -1, np.int32) for _ in range(2))
        self.epoch = np.zeros(blocks, np.int32)

    def passes(self, blocks: np.ndarray) -> None:
        self.epoch[blocks] += 1

    def _bytes(self, addresses, size: int, blocks) -> np.ndarray:
        """The places of each access's bytes."""
        offset = addresses.astype(np.int64) - self.BASE
        outside = (offset < 0) | (offset + size > self.size)
        if outside.any():
            raise Fault(f'access at {int(offset[outside][0])} of {self.size} bytes of shared memory')
        return (offset + blocks * self.size)[:, None] + np.arange(size)

    def load(self, addresses, size: int, blocks, warps) -> np.ndarray:
        places = self._bytes(addresses, size, blocks)
        if (self.writer[places] < 0).any():
            raise Fault('read of shared memory that no thread wrote')
        epoch = self.epoch[blocks][:, None] * 64
        me = np.broadcast_to(epoch + warps[:, None], places.shape)
        self._no_other(self.writer[places], epoch, me, 'read of shared memory that another warp wrote')
        before = self.reader[places]
        self.reader[places] = np.where((before >= epoch) & (before != me), epoch + SEVERAL, me)
        after = self.reader[places]
        self.reader[places[after != me]] = (epoch + SEVERAL + 0 * me)[after != me]
        return self.data[places].view(UNSIGNED[size])[:, 0]

    def store(self, addresses, size: int, values, blocks, warps) -> None:
        places = self._bytes(addresses, size, blocks)
        epoch = self.epoch[blocks][:, None] * 64
        me = np.broadcast_to(epoch + warps[:, None], places.shape)
        self._no_other(self.reader[places], epoch, me, 'write over shared memory that another warp read')
        given = np.ascontiguousarray(values).view(np.uint8).reshape(-1, size)
        other = self.data[places] != given  # warps may write the same value twice
        self._no_other(
            self.writer[places][other], (epoch + 0 * me)[other], me[other], 'write over what another warp wrote'
        )
        self.data[places] = given
        if not np.array_equal(self.data[places], given):
            raise Fault('threads write different values to one place of shared memory')
        self.writer[places] = me

    @staticmethod
    def _no_other(stamps, epoch, me, what: str) -> None:
        if ((stamps >= epoch) & (stamps != me)).any():
            raise Fault(f'{what}, with no barrier between')
