"""Instructions that move values: between registers, memory and the threads of a warp; and branches and barriers."""

import numpy as np
from gpu.instructions import UNSIGNED, WIDTHS, UnknownInstruction
from gpu.memory import Fault


def _moved(kernel, instruction, modifiers):
    """Also of a register from and into its parts."""
    target, source = instruction.operands
    (kind,) = modifiers
    if kind not in WIDTHS:
        raise UnknownInstruction
    if isinstance(source, list):
        part = f'b{8 * WIDTHS[kind] // len(source)}'

        def step(state, mask):
            parts = np.stack(np.broadcast_arrays(*[state.read(each, part) for each in source]), -1)
            state.write(target, np.ascontiguousarray(parts).view(UNSIGNED[WIDTHS[kind]])[:, 0], mask)
    elif isinstance(target, list):
        part = UNSIGNED[WIDTHS[kind] // len(target)]

        def step(state, mask):
            parts = np.ascontiguousarray(state.read(source, kind)).view(part).reshape(-1, len(target))
            for i, each in enumerate(target):
                state.write(each, parts[:, i], mask)
    else:
        bits = kind if kind == 'pred' else f'b{8 * WIDTHS[kind]}'

        def step(state, mask):
            state.write(target, state.read(source, bits), mask)

    return step


def _parameter(kernel, instruction, kind):
    target, address = instruction.operands
    offset, _ = kernel.parameters[address.base]
    signed, size = kind[0] == 's', WIDTHS[kind]

    def step(state, mask):
        value = int.from_bytes(state.arguments[offset + address.offset :][:size], 'little', signed=signed)
        width = kernel.widths[target.slot]
        state.write(target, np.array([value % 2 ** (8 * WIDTHS[width])], UNSIGNED[WIDTHS[width]]), mask)

    return step


def _accessed(kernel, instruction, modifiers):
    """Loads and stores, of one register or a vector."""
    loads = instruction.opcode.startswith('ld')
    space, *count, kind = modifiers
    if space == 'param' and loads and not count:
        return _parameter(kernel, instruction, kind)
    if space not in ('global', 'shared') or count not in ([], ['v2'], ['v4']):
        raise UnknownInstruction
    address, registers = instruction.operands[::-1] if loads else instruction.operands
    registers = registers if isinstance(registers, list) else [registers]
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
    if [each for each in modifiers if each not in ('x1', 'x2', 'x4', 'trans')] != [
        'sync',
        'aligned',
        'm8n8',
        'shared',
        'b16',
    ]:
        raise UnknownInstruction
    address, registers = instruction.operands[::-1] if loads else instruction.operands

    def step(state, mask):
        _whole_warps(state, mask, 'a matrix')
        rows = addresses_of(state, address, 'shared').reshape(-1, 32)
        if (rows[:, : 8 * len(registers)] % 16).any():
            raise Fault('a row of a matrix at no multiple of 16')
        lane, lanes = np.arange(32), slice(None) if mask is None else mask
        for i, register in enumerate(registers):
            halves = np.zeros((state.lanes, 2), np.uint16)
            if not loads:
                halves[:] = (
                    np.ascontiguousarray(state.spread(state.read(register, 'b32'))).view(np.uint16).reshape(-1, 2)
                )
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
    if (sync, kind) != ('sync', 'b32') or mode not in ('bfly', 'idx', 'up', 'down') or isinstance(target, list):
        raise UnknownInstruction

    def step(state, mask):
        if (state.read(members, 'b32') != 0xFFFFFFFF).any():
            raise Fault('a shuffle among some threads of a warp')
        _whole_warps(state, mask, 'a shuffle')
        lane = state.thread % 32
        distance, limits = (state.read(each, 'b32').astype(np.int64) for each in (by, clamp))
        segment = limits >> 8 & 31
        low, high = lane & segment, (lane & segment) | (limits & 31 & ~segment)
        other = {'bfly': lane ^ distance, 'idx': low | (distance & ~segment), 'up': lane - distance,
                 'down': lane + distance}[mode]  # fmt: skip
        inside = other >= high if mode == 'up' else other <= high
        place = np.arange(state.lanes) - lane + np.where(inside, other, lane)
        state.write(target, state.spread(state.read(source, 'b32'))[place], mask)

    return step


REDUCTIONS = {'max': np.max, 'min': np.min, 'add': np.sum, 'and': np.bitwise_and.reduce, 'or': np.bitwise_or.reduce}


def _reduced(kernel, instruction, modifiers):
    sync, name, kind = modifiers
    target, source, members = instruction.operands
    if sync != 'sync' or kind not in ('s32', 'u32', 'b32'):
        raise UnknownInstruction
    function = REDUCTIONS[name]

    def step(state, mask):
        if (state.read(members, 'b32') != 0xFFFFFFFF).any():
            raise Fault('a reduction of some threads of a warp')
        _whole_warps(state, mask, 'a reduction')
        values = state.spread(state.read(source, kind)).reshape(-1, 32)
        state.write(target, np.repeat(function(values, axis=1), 32).astype(values.dtype).view(np.uint32), mask)

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


OPERATIONS = {
    'mov': _moved, 'ld': _accessed, 'st': _accessed, 'ldmatrix': _matrices, 'stmatrix': _matrices, 'shfl': _shuffled,
    'redux': _reduced, 'bar': _barrier, 'bra': _branch, 'ret': lambda kernel, instruction, modifiers: lambda state, mask: -1,
}  # fmt: skip
