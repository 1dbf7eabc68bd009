"""Which registers NVIDIA's instructions read and write.

Results of 64 and 128 bits lie in neighbouring registers. Where such a result is computed, its low half is taken to depend on
the low halves of what it is computed from only: an address is told by its low half.
"""

import re

from tools.kernel_analysis.data_flow import SHARED, Effect, Step, parameter
from tools.kernel_analysis.machine_code import Instruction

# A parameter (of constant bank 0), or a register; RZ, URZ and PT are none.
_OPERAND = re.compile(r'c\[0x0\]\[0x([0-9a-f]+)\]|\b(UR|R|UP|P)(\d+)\b')
_TESTS = re.compile(r'U?[A-Z]*SETP|U?PLOP3|FCHK')
_AGREES = re.compile(r'SHFL|C?REDUX|VOTE|MATCH')
_NO_RESULT = re.compile(
    r'ST[GSL]?\b|STSM|U?RED\b|BAR|BRA|BRX|BREAK|BSSY|BSYNC|BMOV|CALL|RET|EXIT|WARPSYNC|MEMBAR|DEPBAR'
)
_IS_PREDICATE = re.compile(r'!?U?P(T|\d)$')


def step(one: Instruction) -> Step:
    """What an instruction does."""
    # What stands for a descriptor is the same for all addresses.
    operands = [text.strip() for text in re.sub(r'desc\[\w+\]', '', one.operands).split(',')]
    guard = tuple(_registers(one.guard))
    effects: list[Effect] = []
    address: tuple[str, ...] = ()
    if one.is_load or one.is_store:
        address = tuple(name for text in operands if '[' in text for name in _registers(text))
    data = [name for text in operands if '[' not in text for name in _registers(text, _width(one.name))]
    if one.name.startswith(('STS', 'STL')):
        effects = [Effect(SHARED, (SHARED, *data))]
    elif one.is_load:
        effects = [Effect(name, (*address, *guard), 'loads') for name in data]
    elif one.name.startswith(('LDS', 'LDL')):
        effects = [Effect(name, (SHARED, *guard)) for name in data]
    elif one.name.startswith(('P2R', 'R2P')):
        chosen = [f'P{n}' for n in range(7) if int(operands[-1], 16) >> n & 1]
        if one.name.startswith('R2P'):
            effects = [Effect(name, (*_registers(operands[1]), *guard), 'tests') for name in chosen]
        else:
            effects = [Effect(name, (*chosen, *_registers(operands[2]), *guard)) for name in _registers(operands[0])]
    elif not _NO_RESULT.match(one.name):
        effects = _computed(one.name, operands, guard)
    decides = one.ends or one.target
    predicates = [name for text in operands if _IS_PREDICATE.match(text) for name in _registers(text)]
    return Step(tuple(effects), bool(guard), address, (*guard, *predicates) if decides else ())


def _width(name: str) -> int:
    """Registers of a result."""
    if re.search(r'\.128\b|\.M?T?88\.4\b', name):
        return 4
    is_pair = re.search(r'\.64\b|\.M?T?88\.2\b|WIDE|^CS2R(?!\.32)|^F(ADD|MUL|FMA)2\b', name)
    return 2 if is_pair else 1


def _registers(text: str, width: int = 1) -> list[str]:
    """The registers of an operand, and those after each that belong to it."""
    return [
        parameter(int(offset, 16) + 4 * n) if offset else f'{kind}{int(index) + n}'
        for offset, kind, index in _OPERAND.findall(text)
        for n in range(width)
    ]


def _computed(name: str, operands: list[str], guard: tuple[str, ...]) -> list[Effect]:
    """The effects of what computes its results."""
    tests = _TESTS.match(name)
    kinds = ''.join('P' if _IS_PREDICATE.match(text) else 'R' for text in operands)
    # The results: predicates, or a register with the carries after it, or predicates before: SHFL's one, IMNMX.S64's two;
    # VOTE's may be a predicate alone.
    count = re.match('P{1,2}' if tests else 'P?RP?|P' if name.startswith('VOTE') else 'PPR|P?RP{0,2}', kinds).end()
    results, operands = operands[:count], operands[count:]
    how = 'tests' if tests else 'agrees' if _AGREES.match(name) else 'moves'
    width = _width(name)
    low = (*(register for text in operands for register in _registers(text)), *guard)
    # The factors of a wide product are single registers, what is added to it is a pair.
    wide = operands[2:] if 'WIDE' in name else operands
    whole = (*low, *(register for text in wide for register in _registers(text, width)))
    effects = []
    for text in results:
        for n, register in enumerate(_registers(text, width)):
            if _IS_PREDICATE.match(text):
                effects += [Effect(register, whole, how if name.startswith('VOTE') else 'tests')] * (n == 0)
            elif re.match(r'U?LDCU?\b', name):
                effects.append(Effect(register, (*_registers(operands[0], width)[n : n + 1], *guard)))
            else:
                effects.append(Effect(register, whole if n else low, how))
    return effects
