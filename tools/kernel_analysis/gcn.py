"""Which registers AMD's instructions read and write.

Where lanes are masked, by the register exec, a result leaves the others what they had: between what narrows exec and what
restores it.
"""

import itertools
import re

from tools.kernel_analysis.data_flow import SHARED, Effect, Step, parameter
from tools.kernel_analysis.machine_code import Listing

_REGISTER = re.compile(r'\b([sva])(?:(\d+)\b|\[(\d+):(\d+)\])|\b(vcc|exec)\w*')
_COMMA = re.compile(r',(?![^\[]*\])')
_NO_RESULT = re.compile(
    r's_(nop|waitcnt|wait_|barrier|branch|cbranch|endpgm|sendmsg|sleep|clause|delay|setprio|code_end|set)'
)
_AGREES = re.compile(r'\w+_dpp|v_(readlane|readfirstlane|writelane|permlane)|ds_(bpermute|permute|swizzle)')
_TWO_RESULTS = re.compile(r'v_\w+_co_|v_div_scale|v_mad_[ui]64')


def steps(listing: Listing) -> list[Step]:
    """What the instructions do."""
    found = [_step(one.name, one.operands) for one in listing.instructions]
    masking = [at for at, step in enumerate(found) if any(effect.destination == 'exec' for effect in step.effects)]
    for at, rejoined in itertools.pairwise(masking):
        if not _restores(listing.instructions[at].name, listing.instructions[at].operands):
            found[at] = found[at]._replace(rejoined=rejoined)
    return found


def _restores(name: str, operands: str) -> bool:
    """Whether what sets exec takes back a mask."""
    return re.match(r's_or_b(32|64)$', name) is not None or operands.endswith('-1')


def entry(text: str) -> list[str]:
    """The registers that hold the address of the parameters, from a kernel's description."""
    before = {'private_segment_buffer': 4, 'dispatch_ptr': 2, 'queue_ptr': 2}
    first = sum(n for name, n in before.items() if re.search(rf'\.amdhsa_user_sgpr_{name} 1', text))
    return [f's{first}', f's{first + 1}']


def _registers(text: str) -> list[str]:
    """The registers of an operand."""
    names = []
    for kind, index, first, last, special in _REGISTER.findall(text):
        indices = range(int(first), int(last) + 1) if first else [index]
        names += [special] if special else [f'{kind}{n}' for n in indices]
    return names


def _step(name: str, operands: str) -> Step:
    texts = _COMMA.split(operands)
    first, *others = map(_registers, texts)
    rest = tuple(itertools.chain(*others))
    if branch := re.match(r's_cbranch_(exec|vcc|scc)', name):
        return Step(condition=(branch[1],))
    if _NO_RESULT.match(name):
        return Step()
    if re.match(r's_(buffer_)?load', name):
        offset = int(texts[-1], 0) if re.match(r'\s*(0x)?[0-9a-f]+$', texts[-1]) else 0
        return Step(
            tuple(Effect(register, rest, 'loads', parameter(offset + 4 * n)) for n, register in enumerate(first))
        )
    if re.match(r'(buffer|global|flat|scratch)_load', name):
        return Step(tuple(Effect(register, rest, 'loads') for register in first), address=rest)
    if re.match(r'(global|flat|scratch)_store', name):
        return Step(address=(*first, *(others[1] if len(others) > 1 else ())))
    if name.startswith('buffer_store'):
        return Step(address=rest)
    if re.match(r'ds_(write|store)', name):
        return Step((Effect(SHARED, (SHARED, *rest)),))
    if re.match(r'ds_(read|load)', name):
        return Step(tuple(Effect(register, (SHARED,)) for register in first))
    return Step(_computed(name, operands, first, others), re.match(r'v_writelane|\w+_dpp', name) is not None)


def _computed(name: str, operands: str, first: list[str], others: list[list[str]]) -> tuple[Effect, ...]:
    """The effects of what computes its results."""
    if re.match(r's_(cmpk?|bitcmp)', name):
        return (Effect('scc', (*first, *itertools.chain(*others)), 'tests'),)
    if name.startswith('v_cmpx'):
        return (Effect('exec', ('exec', *first, *itertools.chain(*others)), 'tests'),)
    results = first
    if _TWO_RESULTS.match(name):
        results, others = first + others[0], others[1:]
    sources = tuple(itertools.chain(*others))
    if 'saveexec' in name:
        return (*(Effect(register, ('exec',)) for register in results), Effect('exec', ('exec', *sources)))
    if results == ['exec']:
        return (Effect('exec', () if _restores(name, operands) else sources),)
    if re.match(r'v_(pk_)?(fmac|mac|dot\w*c)_|s_(addk|mulk|cmovk?)_', name):
        sources += tuple(results)
    how = 'tests' if name.startswith('v_cmp') else 'agrees' if _AGREES.match(name) else 'moves'
    effects = tuple(Effect(register, sources, how) for register in results)
    if name.startswith('s_') and 'mov' not in name:
        effects += (Effect('scc', sources, 'tests'),)
    return effects
