"""A GPU in software: it runs the PTX that Triton compiles, a lane of NumPy arrays a thread, many blocks at once.

The lowest program counter among the unfinished lanes steps first, so that branches meet again. What a GPU does not promise
is refused: see memory.py; a barrier that not all threads of a block are at; a shuffle from a thread that is elsewhere.
"""

import functools
import re
from typing import Any, NamedTuple

import numpy as np

from tests.gpu import transfers
from tests.gpu.instructions import WIDTHS, UnknownInstruction, given, meaning, taken
from tests.gpu.memory import UNSIGNED, Fault, Global, Shared

LANES = 2**14  # blocks at once have about as many threads
STATEMENT = re.compile(r'\s*(?:([{}])|([$\w]+):|([^\s{};][^;]*);)')
OPERAND = re.compile(r'\{[^}]*\}|\[[^\]]*\]|[^\s,]+')
GUARDED = re.compile(r'(?:@(!?)(%?\w+)\s+)?([\w.:]+)\s*(.*)', re.DOTALL)


class Register(NamedTuple):
    slot: int


class Address(NamedTuple):
    base: Any
    offset: int


class Instruction(NamedTuple):
    opcode: str
    operands: list
    guard: Register | None
    negated: bool
    text: str


class Module:
    """The one kernel of a PTX text.

    Attributes:
        types: of the parameters by their names.
        widths: of the registers.
        code, labels: the instructions, and the index of the first behind each label.
        reached, withheld: the indices of those that ran, and that a predicate kept from some of the lanes that were there.
    """

    def __init__(self, text: str):
        text = re.sub(r'//[^\n]*|^\s*\.(loc|file|pragma)\b[^\n]*', '', text, flags=re.MULTILINE)
        self.name, parameters = re.search(r'\.entry\s+(\w+)\s*\((.*?)\)', text, re.DOTALL).groups()
        self.threads = int(re.search(r'\.(?:req|max)ntid\s+(\d+)', text)[1])
        self.types = {
            name: kind
            for kind, name in re.findall(
                r'\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)[^,]*?(\w+)(?:\[\d+\])?\s*(?:,|$)', parameters.strip()
            )
        }
        self.shared = 0  # bytes that the kernel declares
        self._places: dict[str, str] = {}
        self.widths: list[str] = []
        self.reached, self.withheld = set(), set()
        self.code: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self._scopes: list[dict[str, Register]] = []
        body = text[re.search(r'\.entry[^{]*', text).end() :]
        for match in STATEMENT.finditer(body):
            self._statement(*match.groups())
            if not self._scopes:
                break
        self.steps = [_step(self, instruction) for instruction in self.code]

    def _statement(self, brace: str | None, label: str | None, statement: str | None) -> None:
        if brace == '{':
            self._scopes.append({})
        elif brace == '}':
            self._scopes.pop()
        elif label is not None:
            self.labels[label] = len(self.code)
        elif statement.startswith('.reg'):
            kind, names = re.match(r'\.reg\s+\.(\w+)\s+(.*)', statement, re.DOTALL).groups()
            for name in re.split(r'\s*,\s*', names.strip()):
                some = re.fullmatch(r'(\S+)<(\d+)>', name)
                for each in [f'{some[1]}{i}' for i in range(int(some[2]))] if some else [name]:
                    self._scopes[-1][each] = Register(len(self.widths))
                    self.widths.append(kind)
        elif statement.startswith('.shared'):
            name, size = re.search(r'(\w+)\[(\d+)\]', statement).groups()
            self._places[name] = str(Shared.BASE + self.shared)
            self.shared += -(-int(size) // 16) * 16
        else:
            words = ' '.join(statement.split())
            match = GUARDED.fullmatch(words)
            if match is None:
                raise Fault(f'{self.name}: unknown instruction: {words}')
            negated, guard, opcode, rest = match.groups()
            operands = [self._operand(each) for each in OPERAND.findall(rest)]
            self.code.append(Instruction(opcode, operands, guard and self._operand(guard), negated == '!', words))

    def _operand(self, word: str):
        """A register, a list of operands, an address, or a word: a number, a label, or a name."""
        for scope in reversed(self._scopes):
            if word in scope:
                return scope[word]
        if word[0] == '{':
            return [self._operand(each) for each in re.split(r'\s*,\s*', word[1:-1].strip())]
        if word[0] == '[':
            base, _, offset = word[1:-1].replace(' ', '').partition('+')
            return Address(self._operand(base), int(offset or 0))
        if '|' in word:
            return [self._operand(each) for each in word.split('|')]
        return self._places.get(word, word)


module = functools.lru_cache(maxsize=64)(Module)  # one takes some megabytes, and there are a thousand


class State:
    """Some blocks of a launch: registers (one entry where all lanes agree), memories, and which lanes are where."""

    def __init__(self, kernel: Module, memory: Global, arguments: dict, grid, first: int, blocks: int, shared: int):
        self.kernel, self.memory, self.arguments = kernel, memory, arguments
        self.threads, self.lanes = kernel.threads, blocks * kernel.threads
        self.registers: list[np.ndarray | None] = [None] * len(kernel.widths)
        self.thread = np.tile(np.arange(self.threads), blocks)
        self.block = np.repeat(np.arange(blocks), self.threads)
        self.number, self.warp = self.block + first, self.thread // 32
        x, y, z = grid
        special = {
            'tid.x': self.thread, 'ntid.x': self.threads, 'nctaid.x': x, 'nctaid.y': y, 'nctaid.z': z,
            'ctaid.x': self.number % x, 'ctaid.y': self.number // x % y, 'ctaid.z': self.number // (x * y),
        }  # fmt: skip
        self.special = {f'%{name}': np.atleast_1d(value).astype(np.uint32) for name, value in special.items()}
        self.special |= {name: np.zeros(1, np.uint64) for name, kind in kernel.types.items() if kind == 'b8'}
        self.special['global_smem'] = np.array([Shared.BASE], np.uint32)  # where shared memory begins
        self.shared = Shared(blocks, shared + kernel.shared)
        self.unfinished = np.ones(self.lanes, bool)
        self.waiting = {0: self.unfinished.copy()}

    def read(self, operand, kind: str) -> np.ndarray:
        if isinstance(operand, Register):
            bits = self.registers[operand.slot]
            if bits is None:
                raise Fault('a register is read that nothing was written to')
            return taken(bits, kind)
        if operand in self.special:
            return taken(self.special[operand], kind)
        try:
            return taken(_constant(operand, kind), kind)
        except (ValueError, AttributeError, TypeError):
            raise Fault(f'unknown operand {operand}') from None

    def write(self, operand, bits: np.ndarray, mask: np.ndarray | None) -> None:
        if operand == '_':
            return
        width = self.kernel.widths[operand.slot]
        if width != 'pred':
            bits = bits.astype(UNSIGNED[WIDTHS[width]], copy=False)
        if mask is not None:
            old = self.registers[operand.slot]
            poison = np.array([~np.array(0, bits.dtype)])  # NaN, or far from every tensor
            bits = np.where(mask, bits, poison if old is None else old)
        self.registers[operand.slot] = bits

    def spread(self, values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (self.lanes, *values.shape[1:]))

    def run(self) -> None:
        code, steps = self.kernel.code, self.kernel.steps
        while self.waiting:
            at = min(self.waiting)
            here = self.waiting.pop(at)
            until = min(self.waiting, default=len(code))
            mask = None if here.all() else here
            while at < until:
                instruction, guarded = code[at], mask
                try:
                    if instruction.guard is not None:
                        guard = self.spread(self.read(instruction.guard, 'pred') ^ instruction.negated)
                        guarded = guard & here
                        if (guarded != here).any():
                            self.kernel.withheld.add(at)
                        guarded = None if guarded.all() else guarded
                    at += 1
                    if guarded is None or guarded.any():
                        self.kernel.reached.add(at - 1)
                        target = steps[at - 1](self, guarded)
                        if target is not None:  # a branch, or the end
                            gone = here if guarded is None else guarded
                            if target >= 0:
                                self.wait(target, gone)
                            else:
                                self.unfinished &= ~gone
                            here = here & ~gone
                            break
                except Fault as fault:
                    raise Fault(f'{self.kernel.name}: {instruction.text}: {fault}') from None
            if here.any():
                self.wait(at, here)

    def wait(self, at: int, lanes: np.ndarray) -> None:
        self.waiting[at] = self.waiting[at] | lanes if at in self.waiting else lanes


def launch(text: str, grid: tuple[int, int, int], arguments: list, regions: list, shared: int = 0) -> None:
    """Runs a kernel.

    Args:
        text: PTX.
        grid: the numbers of blocks.
        arguments: numbers and addresses, one for each parameter of the kernel.
        regions: the memory that it may reach.
        shared: how many bytes a block shares.
    """
    kernel = module(text)
    values = {name: _bits(value, kind) for (name, kind), value in zip(kernel.types.items(), arguments, strict=True)}
    blocks, at_once = grid[0] * grid[1] * grid[2], max(LANES // kernel.threads, 1)
    memory = Global(regions)
    with np.errstate(all='ignore'):
        for first in range(0, blocks, at_once):
            State(kernel, memory, values, grid, first, min(at_once, blocks - first), shared).run()


def _bits(value: float | bytes, kind: str) -> np.ndarray:
    """A number as a register's, or the bytes of a structure."""
    if kind == 'b8':
        return np.frombuffer(value, np.uint8)
    if kind == 'f32':
        return np.array([value], np.float32).view(np.uint32)
    return np.array([int(value) % 2 ** (8 * WIDTHS[kind])], UNSIGNED[WIDTHS[kind]])


@functools.cache
def _constant(word: str, kind: str) -> np.ndarray:
    bits = int(word[2:], 16) if word.startswith('0f') else int(word.removesuffix('U'), 0)
    return np.array([bool(bits)]) if kind == 'pred' else _bits(bits, f'b{8 * WIDTHS[kind]}')


def _step(kernel: Module, instruction: Instruction):
    """The function of the state and a mask (None for all lanes) that an instruction stands for."""
    name, *modifiers = instruction.opcode.split('.')
    try:
        if name in transfers.OPERATIONS:
            return transfers.OPERATIONS[name](kernel, instruction, modifiers)
        function, result, kinds = meaning(instruction.opcode)
        target, *sources = instruction.operands
        operands = list(zip(sources, kinds, strict=True))
    except (UnknownInstruction, KeyError, ValueError):
        raise Fault(f'{kernel.name}: unknown instruction: {instruction.text}') from None

    def step(state: State, mask) -> None:
        values = function(*[state.read(operand, kind) for operand, kind in operands])
        if isinstance(target, list):  # a predicate for each of a pair
            for i, each in enumerate(target):
                state.write(each, values[:, i], mask)
        else:
            state.write(target, given(values, result), mask)

    return step
