"""Instructions that move values: between registers, memory and the threads of a warp; and branches and barriers."""

import numpy as np

from tests.gpu.instructions import PLAIN, WIDTHS, UnknownInstruction, given, taken
from tests.gpu.memory import UNSIGNED, Fault


def _listed(operand) -> list:
    return operand if isinstance(operand, list) else [operand]


def _moved(kernel, instruction, modifiers):
    """Also of a register from and into its parts."""
    (kind,), (targets, sources) = modifiers, map(_listed, instruction.operands)
    of, to = (kind if kind == 'pred' else f'b{8 * WIDTHS[kind] // len(parts)}' for parts in (sources, targets))

    def step(state, mask):
        values = np.stack(np.broadcast_arrays(*[state.read(each, of) for each in sources]), -1)
        values = np.ascontiguousarray(values).view(PLAIN[to])
        for i, each in enumerate(targets):
            state.write(each, values[:, i], mask)

    return step


def _parameter(kernel, instruction, kind):
    """Widened to the register, by its sign where it has one; some numbers that lie side by side in a structure."""
    targets, address = _listed(instruction.operands[0]), instruction.operands[1]
    size, by_register = WIDTHS[kind], isinstance(address.base, tuple)
    of_structure = by_register or kernel.types[address.base] == 'b8'
    if not of_structure and (address.offset or len(targets) > 1):
        raise UnknownInstruction

    def step(state, mask):
        first = 0
        if by_register:
            places = np.unique(state.spread(state.read(address.base, 's64'))[slice(None) if mask is None else mask])
            if len(places) > 1:
                raise Fault('parameters that differ from thread to thread')
            first = int(places[0])
        for i, target in enumerate(targets):
            bits, at = next(iter(state.arguments.values())), first + address.offset + i * size
            if not of_structure:
                bits = state.arguments[address.base]
            elif at % size:
                raise Fault(f'an address that is no multiple of {size}')
            else:
                bits = bits[at : at + size].view(UNSIGNED[size])
            width = f'{kind[0]}{kernel.widths[target.slot][1:]}'
            state.write(target, given(taken(bits, kind), width), mask)

    return step


def _accessed(kernel, instruction, modifiers):
    """Loads and stores, of one register or a vector."""
    loads = instruction.opcode.startswith('ld')
    space, *count, kind = modifiers
    if space == 'param' and loads:
        return _parameter(kernel, instruction, kind)
    if space not in ('global', 'shared') or count not in ([], ['v2'], ['v4']):
        raise UnknownInstruction
    address, registers = instruction.operands[::-1] if loads else instruction.operands
    registers = _listed(registers)
    size, kind = WIDTHS[kind], f'b{8 * WIDTHS[kind]}'
    if len(registers) != (int(count[0][1]) if count else 1):
        raise UnknownInstruction

    def step(state, mask):
        lanes = slice(None) if mask is None else mask
        addresses = addresses_of(state, address, space)[lanes]
        if (addresses % np.uint64(size * len(registers))).any():
            raise Fault(f'an address that is no multiple of {size * len(registers)}')
        if space == 'global' and state.memory.watch is not None:
            name = 'ld' if loads else 'st'
            state.memory.watch(state.memory, name, addresses, state.number[lanes], state.warp[lanes])
        for i, register in enumerate(registers):
            at = addresses + np.uint64(i * size)
            where = (state.block[lanes], state.warp[lanes]) if space == 'shared' else ()
            memory = state.shared if space == 'shared' else state.memory
            if loads:
                _filled(state, register, memory.load(at, size, *where), mask)
            else:
                memory.store(at, size, state.spread(state.read(register, kind))[lanes], *where)

    return step


def addresses_of(state, address, space: str) -> np.ndarray:
    base = state.spread(state.read(address.base, 'b64' if space == 'global' else 'b32')).astype(np.uint64)
    return base + np.uint64(address.offset % 2**64)


def _filled(state, register, values, mask) -> None:
    """Writes what the lanes of a mask got."""
    if mask is not None:
        every = np.zeros(state.lanes, values.dtype)
        every[mask] = values
        values = every
    state.write(register, values, mask)


def _matrices(kernel, instruction, modifiers):
    """ldmatrix and stmatrix: 8 x 8 matrices of 16 bits, the rows of the i-th at the addresses of threads 8 i to 8 i + 7.

    A thread holds two neighbours of a row, or, transposed, of a column.
    """
    loads, transposed = instruction.opcode.startswith('ld'), 'trans' in modifiers
    shape = '.'.join(each for each in modifiers if each not in ('x1', 'x2', 'x4', 'trans'))
    if shape != 'sync.aligned.m8n8.shared.b16':
        raise UnknownInstruction
    address, registers = instruction.operands[::-1] if loads else instruction.operands

    def step(state, mask):
        _whole_warps(state, mask, 'a matrix')
        rows = addresses_of(state, address, 'shared').reshape(-1, 32)
        here = slice(None) if mask is None else mask.reshape(-1, 32)[:, 0]
        if (rows[here, : 8 * len(registers)] % 16).any():
            raise Fault('a row of a matrix at no multiple of 16')
        lane, lanes = np.arange(32), slice(None) if mask is None else mask
        for i, register in enumerate(registers):
            halves = np.zeros((state.lanes, 2), np.uint16)
            if not loads:
                bits = state.read(register, 'b32')
                halves[:] = np.stack([bits & 0xFFFF, bits >> 16], -1)
            for k in range(2):
                row, column = lane // 4, lane % 4 * 2 + k
                row, column = (column, row) if transposed else (row, column)
                at = (rows[:, 8 * i + row] + column.astype(np.uint64) * 2).reshape(-1)[lanes]
                where = state.block[lanes], state.warp[lanes]
                if loads:
                    halves[lanes, k] = state.shared.load(at, 2, *where)
                else:
                    state.shared.store(at, 2, halves[lanes, k], *where)
            if loads:
                state.write(register, halves.view(np.uint32)[:, 0], mask)

    return step


def _whole_warps(state, mask, what: str) -> None:
    """Refuses what a warp does together where some of its threads are elsewhere."""
    if mask is not None:
        warps = mask.reshape(-1, 32)
        if (warps.any(1) & ~warps.all(1)).any():
            raise Fault(f'{what} without all threads of a warp')


def _shuffled(kernel, instruction, modifiers):
    sync, mode, kind = modifiers
    target, source, by, clamp, members = instruction.operands
    if (sync, kind) != ('sync', 'b32') or mode not in ('bfly', 'idx'):
        raise UnknownInstruction
    target = _listed(target)[0]  # of a pair the second says that the other thread is in reach, which it always is

    def step(state, mask):
        for operand, value in ((clamp, 31), (members, 0xFFFFFFFF)):
            if (state.spread(state.read(operand, 'b32'))[slice(None) if mask is None else mask] != value).any():
                raise Fault('a shuffle of some threads of a warp')
        _whole_warps(state, mask, 'a shuffle')
        by_lane, lane = state.read(by, 'b32').astype(np.int64) & 31, state.thread % 32
        other = lane ^ by_lane if mode == 'bfly' else by_lane
        state.write(target, state.spread(state.read(source, 'b32'))[np.arange(state.lanes) - lane + other], mask)

    return step


def _reduced(kernel, instruction, modifiers):
    target, source, members = instruction.operands
    if modifiers != ['sync', 'max', 's32']:
        raise UnknownInstruction

    def step(state, mask):
        if (state.read(members, 'b32') != 0xFFFFFFFF).any():
            raise Fault('a reduction of some threads of a warp')
        _whole_warps(state, mask, 'a reduction')
        values = state.spread(state.read(source, 's32')).reshape(-1, 32)
        state.write(target, np.repeat(values.max(1), 32).view(np.uint32), mask)

    return step


def _barrier(kernel, instruction, modifiers):
    if modifiers != ['sync'] or instruction.operands != ['0']:
        raise UnknownInstruction

    def step(state, mask):
        here = np.ones(state.lanes, bool) if mask is None else mask
        blocks = here.reshape(-1, state.threads)
        missing = (state.unfinished & ~here).reshape(-1, state.threads)
        if (blocks.any(1) & missing.any(1)).any():
            raise Fault('a barrier that not all threads of a block are at')
        state.shared.passes(blocks.any(1))

    return step


def _branch(kernel, instruction, modifiers):
    if modifiers not in ([], ['uni']):
        raise UnknownInstruction
    return lambda state, mask: kernel.labels[instruction.operands[0]]


def _global(kernel, instruction, modifiers):
    """An address of global memory, or of what generic addresses reach, is the same number here."""
    return _moved(kernel, instruction, ['b64'])


OPERATIONS = {
    'mov': _moved, 'cvta': _global, 'ld': _accessed, 'st': _accessed, 'ldmatrix': _matrices, 'stmatrix': _matrices,
    'shfl': _shuffled, 'redux': _reduced, 'bar': _barrier, 'bra': _branch,
    'ret': lambda kernel, instruction, modifiers: lambda state, mask: -1,
}  # fmt: skip
