"""What a thread executes of a compiled kernel: read off `nvdisasm -c -g` or AMD's assembly text."""

import re
from collections import deque
from pathlib import Path
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
        line: the kernel's source line that it comes from.
        target: where it branches to, a label, or None.
        predicated: executed for some threads only.
    """

    name: str
    line: int
    target: str | None
    predicated: bool

    @property
    def ends(self) -> bool:
        return self.name in ('EXIT', 's_endpgm')

    @property
    def never_falls_through(self) -> bool:
        return not self.predicated and (self.ends or self.name in ('BRA', 's_branch'))

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
    """The instructions of a kernel, and the index of the instruction at each label."""

    instructions: list[Instruction]
    labels: dict[str, int]


_LABEL = re.compile(r'(\.L\w+):')
_SASS_LINE = re.compile(r'\s*//## File "(.*)", line (\d+)')
_SASS = re.compile(r'\s*/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)(?:.*`\((\.L\w+)\))?')
_GCN_LINE = re.compile(r'\s*\.loc\s.*; (\S+?):(\d+):')
_GCN = re.compile(r'\s+()((?:s|v|ds|buffer|global|scratch|flat)_\w+)(?:\s+(\.L\w+))?')
_BRANCH = re.compile(r'BRA|CALL|JMP|s_c?branch')


def parse(text: str, source: str = '') -> Listing:
    """Reads `nvdisasm -c -g` or AMD's assembly text; `source`: the kernel's file, whose lines are kept."""
    is_gcn = '.amdgcn_target' in text or 's_endpgm' in text
    line_mark, pattern = (_GCN_LINE, _GCN) if is_gcn else (_SASS_LINE, _SASS)
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    line = 0
    for row in text.splitlines():
        if label := _LABEL.match(row):
            labels[label[1]] = len(instructions)
        elif mark := line_mark.match(row):
            line = int(mark[2]) if Path(mark[1]).name == source else 0
        elif found := pattern.match(row):
            predicate, name, target = found.groups()
            if name not in ('NOP', 's_nop'):  # padding
                target = target if _BRANCH.match(name) else None
                instructions.append(Instruction(name, line, target, bool(predicate)))
    return Listing(instructions, labels)


def _following(listing: Listing, at: int, through: set[int]) -> list[int]:
    """Where execution can go from an instruction.

    Args:
        listing: the kernel.
        at: the instruction's index.
        through: source lines whose code is not to be jumped over.
    """
    instructions, labels = listing
    one = instructions[at]
    following = [] if one.never_falls_through else [at + 1]
    if one.target in labels:
        following.append(labels[one.target])
    if through and len(following) == 2:
        starts = set(labels.values())

        def enters(begin: int) -> bool:
            """Whether the code up to the next branch or label is of those lines."""
            end = begin
            while end < len(instructions) and (end == begin or end not in starts):
                if instructions[end].line in through:
                    return True
                if instructions[end].target or instructions[end].ends:
                    break
                end += 1
            return False

        entering = [n for n in following if enters(n)]
        if len(entering) == 1:
            return entering
    return following


def executed(
    listing: Listing, moved: list[tuple[int, int]], total: tuple[int, int], through: set[int] = frozenset()
) -> list[Instruction]:
    """What a thread executes: the shortest way to the end on which it loads and stores as much as its tile holds.

    This counts a loop by its trips, however it was unrolled, and takes the wide one of two ways to load a full tile.

    Args:
        listing: the kernel.
        moved: logits that each instruction loads and stores.
        total: logits that a thread loads and stores.
        through: source lines of conditional code that this way goes through; the shortest one skips them.

    Raises:
        ValueError: there is no such way.
    """
    instructions, _ = listing
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
            return [instructions[n] for n in reversed(way) if n < len(instructions)]
        now = loaded + moved[at][0], stored + moved[at][1]
        if now[0] > total[0] or now[1] > total[1]:
            continue
        for n in _following(listing, at, through):
            reached = (n, *now)
            if reached not in came_from:
                came_from[reached] = state
                states.append(reached)
    raise ValueError(f'no way through the code loads and stores {total} logits: unknown control flow')
