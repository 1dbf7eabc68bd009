"""What a thread executes of a compiled kernel: read off `nvdisasm -c` or AMD's assembly text."""

import re
from collections import deque
from typing import NamedTuple

# What the special-function unit does on NVIDIA, conversions to and from integers included, and on AMD at a quarter rate.
_MUFU = re.compile(r'MUFU|[FI]2[FI]\b|v_(exp|log|rcp|rsq|sqrt)_')
_FP32 = re.compile(
    r'[FH](ADD|MUL|FMA)2?\b|v_(pk_)?(add|sub|subrev|mul|fma|fmac|fmamk|fmaak|mac|mad)\w*_f(16|32)|v_div_'
)
_INTEGER = re.compile(
    r'IADD|IMAD|IMUL|ISETP|LOP|PLOP|SHF|SHL|SHR|LEA|PRMT|SEL|FSEL|FSETP|FMNMX|FCHK|IMNMX|VIADD|VIMNMX|IABS|SGXT|BMSK|POPC|'
    r'FLO|F2FP|CS2R|MOV|R2P|P2R|VOTE|v_'
)


class Instruction(NamedTuple):
    """One machine instruction.

    Attributes:
        name: of the instruction, as the disassembler writes it.
        target: where it branches to, a label, or None.
        guard: the predicate under which a thread executes it, as the disassembler writes it, or ''.
        operands: as the disassembler writes them.
    """

    name: str
    target: str | None
    guard: str
    operands: str

    @property
    def ends(self) -> bool:
        return self.name in ('EXIT', 's_endpgm')

    @property
    def never_falls_through(self) -> bool:
        return not self.guard and (self.ends or self.name in ('BRA', 's_branch'))

    @property
    def unit(self) -> str:
        """'MUFU', 'FP32', 'integer' (compares, selects, moves and logic too), or '' of what only takes an issue slot."""
        for unit, pattern in (('MUFU', _MUFU), ('FP32', _FP32), ('integer', _INTEGER)):
            if pattern.match(self.name):
                return unit
        return ''

    @property
    def is_load(self) -> bool:
        return re.match(r'LDG|(buffer|global)_load', self.name) is not None

    @property
    def is_store(self) -> bool:
        return re.match(r'STG|(buffer|global)_store', self.name) is not None

    @property
    def bits(self) -> int:
        """Width of a global load or store in one thread."""
        if dwords := re.search(r'_dword(?:x(\d))?', self.name):
            return 32 * int(dwords[1] or 1)
        if small := re.search(r'_[us]?(short|byte)', self.name):
            return {'short': 16, 'byte': 8}[small[1]]
        width = re.search(r'(?:\.[US]?|_[bui])(8|16|32|64|96|128|256)\b', self.name)
        return int(width[1]) if width else 32


class Listing(NamedTuple):
    """The instructions of a kernel, and the index of the instruction at each label.

    Attributes:
        is_gcn: AMD's, else NVIDIA's.
    """

    instructions: list[Instruction]
    labels: dict[str, int]
    is_gcn: bool

    def following(self, at: int) -> list[int]:
        """Where execution can go from an instruction."""
        one = self.instructions[at]
        following = [] if one.never_falls_through else [at + 1]
        if one.target in self.labels and self.labels[one.target] not in following:
            following.append(self.labels[one.target])
        return following


_LABEL = re.compile(r'(\.L\w+):')
_SASS = re.compile(r'\s*/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*)')
_GCN = re.compile(r'\s+()((?:s|v|ds|buffer|global|scratch|flat)_\w+)([^;]*)')
_TARGET = re.compile(r'(?:BRA|CALL|JMP|s_c?branch).*?(\.L\w+)')


def parse(text: str) -> Listing:
    """Reads `nvdisasm -c` or AMD's assembly text."""
    is_gcn = '.amdgcn_target' in text or 's_endpgm' in text
    pattern = _GCN if is_gcn else _SASS
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for row in text.splitlines():
        if label := _LABEL.match(row):
            labels[label[1]] = len(instructions)
        elif found := pattern.match(row):
            guard, name, operands = found.groups()
            if name not in ('NOP', 's_nop'):  # padding
                target = _TARGET.match(name + operands)
                instructions.append(Instruction(name, target and target[1], (guard or '').strip(), operands.strip()))
    return Listing(instructions, labels, is_gcn)


def executed(
    listing: Listing,
    moved: list[tuple[int, int]],
    total: tuple[int, int],
    avoided: set[tuple[int, int]] = frozenset(),
) -> list[int]:
    """What a thread executes: the shortest way to the end on which it loads and stores as much as its tile holds.

    This counts a loop by its trips, however it was unrolled, and takes the wide one of two ways to load a full tile.

    Args:
        listing: the kernel.
        moved: logits that each instruction loads and stores.
        total: logits that a thread loads and stores.
        avoided: steps (from an instruction, to the next) that this way does not take.

    Returns:
        The instructions' indices in their order.

    Raises:
        ValueError: there is no such way.
    """
    instructions = listing.instructions
    came_from: dict[tuple, tuple | None] = {(0, 0, 0): None}  # (instruction, loaded, stored) -> the state before
    states = deque(came_from)
    while states:
        state = states.popleft()
        at, loaded, stored = state
        if at == len(instructions) or (instructions[at].ends and (loaded, stored) == total):
            if (loaded, stored) != total:
                continue
            way = []
            while state:
                way.append(state[0])
                state = came_from[state]
            return [n for n in reversed(way) if n < len(instructions)]
        now = loaded + moved[at][0], stored + moved[at][1]
        if now[0] > total[0] or now[1] > total[1]:
            continue
        for n in listing.following(at):
            reached = (n, *now)
            if reached not in came_from and (at, n) not in avoided:
                came_from[reached] = state
                states.append(reached)
    raise ValueError(f'no way through the code loads and stores {total} logits: unknown control flow')
