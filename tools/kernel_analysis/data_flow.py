"""Where what a machine instruction uses comes from: followed from the kernel's parameters through its registers.

No source line is asked. What each register can hold is found for every instruction by going through the code, over all
ways, until nothing new is found: a set of facts, each of a pointer that the kernel was given. sass.py and gcn.py say which
registers an instruction reads and writes.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tools.kernel_analysis.machine_code import Listing

# What a register can hold of a pointer: an address in its memory, something read from there, the answer to a question about
# that, and one to which several threads have contributed.
ADDRESS, VALUE, TEST, AGREED = 'address', 'value', 'test', 'agreed'
SHARED = 'shared memory'  # and a thread's own: one register for all of it
PARAMETERS = 'parameters'  # the pointer to the parameters themselves, which AMD's kernels are given in a register

Facts = frozenset[tuple[str, str]]
NONE: Facts = frozenset()


class Effect(NamedTuple):
    """What an instruction does to one register.

    Attributes:
        destination: the register.
        sources: registers that the result depends on.
        how: 'moves' (or computes), 'loads', 'tests', or 'agrees' with other threads.
        parameter: the register that stands for what is loaded, should the address be that of the parameters.
    """

    destination: str
    sources: tuple[str, ...]
    how: str = 'moves'
    parameter: str = ''


class Step(NamedTuple):
    """What an instruction does to the registers.

    Attributes:
        effects: one per register.
        partial: a thread may be left with what the registers held before.
        address: registers that make up the address of an access to global memory.
        condition: registers that decide on a branch.
        rejoined: where threads go on that this instruction masks, an index, or None.
    """

    effects: tuple[Effect, ...] = ()
    partial: bool = False
    address: tuple[str, ...] = ()
    condition: tuple[str, ...] = ()
    rejoined: int | None = None


class Origin(NamedTuple):
    """Of an instruction: parameters by name.

    Attributes:
        pointers: in whose memory it may load or store.
        indices: from whose memory its address was computed.
        deciders: on whose memory's content a branch depends, as several threads have found it, or one alone.
    """

    pointers: frozenset[str] = frozenset()
    indices: frozenset[str] = frozenset()
    deciders: frozenset[str] = frozenset()


def parameter(offset: int) -> str:
    """The register that stands for four bytes of the parameters."""
    return f'parameter {offset}'


def origins(
    listing: Listing,
    steps: list[Step],
    pointers: Mapping[int, str],
    entry: Iterable[str] = (),
    decides: tuple[str, ...] = (AGREED,),
) -> list[Origin]:
    """The origins of each instruction's address and condition.

    Args:
        listing: the kernel.
        steps: what its instructions do.
        pointers: the names of the parameters that are pointers, by their offset in bytes.
        entry: registers that hold the address of the parameters when the kernel begins.
        decides: what a condition has to hold of a pointer for it to be among the deciders.
    """
    state = {parameter(at + half): frozenset({(ADDRESS, name)}) for at, name in pointers.items() for half in (0, 4)}
    state |= {register: frozenset({(ADDRESS, PARAMETERS)}) for register in entry}
    before: dict[int, dict[str, Facts]] = {0: state}
    found: dict[int, Origin] = {}
    waiting = [0]
    while waiting:
        at = waiting.pop()
        step, state = steps[at], dict(before[at])
        address = _facts(state, step.address)
        deciders = _named(_facts(state, step.condition), *decides)
        found[at] = Origin(_named(address, ADDRESS), _named(address, VALUE), deciders)
        _execute(step, state)
        waiting += [n for n in listing.following(at) if n < len(steps) and _joined(before, n, state)]
        if step.rejoined is not None:
            lanes = {register: facts for register, facts in state.items() if register.startswith('v')}
            waiting += [step.rejoined] * _joined(before, step.rejoined, lanes)
    return [found.get(at, Origin()) for at in range(len(steps))]


def _facts(state: Mapping[str, Facts], registers: Iterable[str]) -> Facts:
    return frozenset().union(*(state.get(register, NONE) for register in registers))


def _named(facts: Facts, *kinds: str) -> frozenset[str]:
    return frozenset(name for fact, name in facts if fact in kinds)


def _execute(step: Step, state: dict[str, Facts]) -> None:
    results = [_result(effect, state) for effect in step.effects]
    for effect, facts in zip(step.effects, results, strict=True):
        if step.partial:
            # An address does not outlast what is written over it: what is counted is a full tile, where guards hold.
            before = state.get(effect.destination, NONE)
            facts |= before if effect.destination == SHARED else {fact for fact in before if fact[0] != ADDRESS}
        state[effect.destination] = facts


def _result(effect: Effect, state: Mapping[str, Facts]) -> Facts:
    facts = _facts(state, effect.sources)
    if effect.how == 'loads':
        if (ADDRESS, PARAMETERS) in facts:
            return state.get(effect.parameter, NONE)
        return frozenset((VALUE, name) for kind, name in facts if kind in (ADDRESS, VALUE))
    if effect.how == 'tests':
        return frozenset((TEST if kind == VALUE else kind, name) for kind, name in facts if kind != ADDRESS)
    if effect.how == 'agrees':
        return facts | {(AGREED, name) for kind, name in facts if kind in (VALUE, TEST)}
    return facts


def _joined(before: dict[int, dict[str, Facts]], at: int, state: Mapping[str, Facts]) -> bool:
    """Adds what the registers can hold on one more way to an instruction; whether that is more than was known."""
    if at not in before:
        before[at] = dict(state)
        return True
    known, is_more = before[at], False
    for register, facts in state.items():
        if not facts <= known.get(register, NONE):
            known[register] = known.get(register, NONE) | facts
            is_more = True
    return is_more
