"""Faults put into the PTX of real kernels are caught: the machine stops, or the result is none of the oracle's."""

import itertools
import re

import pytest
import torch

from focal_plugin import use_backend
from tests.gpu import machine
from tests.gpu.driver import needs_compiler
from tests.gpu.memory import Fault
from tests.oracle import check_focal, check_softmax
from tests.oracle.inputs import labels, predictions

pytestmark = needs_compiler
ROWS = 125  # almost a tile of 128, the largest: no tile divides it, and each thread has a row whose result counts


def _focal(classes: int, dtype=torch.float32, weighted: bool = False, gap: int = 0, rare: bool = False, **arguments):
    pred, weight = predictions(ROWS, classes + gap).to(dtype)[:, :classes], torch.rand(ROWS) + 0.5
    target = labels(ROWS, classes=classes)
    target[-1] = classes  # whose logit would lie beyond the last
    if rare:
        target[:] = classes
        target[7] = 0
    check_focal.check('cpu', pred, target, weight if weighted else None, **arguments)


def _often_and_rarely(*arguments, **options):
    """One positive alone shows whether all threads hear of it."""
    _focal(*arguments, **options)
    _focal(*arguments, rare=True, **options)


CASES = {
    'tiles': lambda: _focal(80, weighted=True),
    'tiles of halves': lambda: _focal(80, torch.bfloat16),
    # With a gap, the place behind a row is none of the next row's.
    'a thread per row': lambda: _often_and_rarely(3, torch.float16, gap=1),
    'a thread per place': lambda: _often_and_rarely(3, torch.float16, reduction='none'),
    'flat': lambda: _focal(365, reduction='none'),
    'a softmax': lambda: check_softmax.check('cpu', *check_softmax.inputs(ROWS, 20), reduction='sum'),
}


def _dropped(line: str) -> str:
    return ''


def _unguarded(line: str) -> str:
    return re.sub(r'@!?%p\d+ ', '', line)


def _farther(line: str) -> str:
    """By one element."""
    size = int(re.search(r'\.b(\d+)', line)[1]) // 8 * int((re.search(r'\.v(\d)', line) or '11')[1])
    return re.sub(r'\+ 0 \]', f'+ {size} ]', line)


def _shorter(line: str) -> str:
    return re.sub(r', (\d+), 31, -1', lambda match: f', {int(match[1]) // 2}, 31, -1', line)


def _ran(kernel: machine.Module, place: int) -> bool:
    return place in kernel.reached


def _withheld(kernel: machine.Module, place: int) -> bool:
    """Whether a predicate kept it from some lanes: elsewhere it changes nothing."""
    return place in kernel.reached and place in kernel.withheld


def _before_a_load(kernel: machine.Module, place: int) -> bool:
    """Triton puts barriers before stores to shared memory too, some where a warp writes over what only it has read."""
    following = (each.opcode for each in kernel.code[place:] if 'shared' in each.opcode)
    return place in kernel.reached and next(following).startswith('ld')


MUTANTS = {
    'a dropped barrier': (r'^.*bar\.sync.*$', _dropped, _before_a_load),
    'a load or store without its mask': (r'^.*@!?%p\d+ (?:ld|st)\.global.*$', _unguarded, _withheld),
    'a load or store of the next element': (r'^.*(?:ld|st)\.global.*\+ 0 \].*$', _farther, _ran),
    'a shuffle over half the distance': (r'^.*shfl\.sync\.bfly.*$', _shorter, _ran),
}


@pytest.fixture
def driver(monkeypatch):
    from tests.gpu.driver import install

    return install(monkeypatch, 90)


def _mutants(text: str, pattern: str, change, matters):
    """(the line, the text with it changed) of the instructions for which that matters."""
    kernel = machine.module(text)
    places = [i for i, each in enumerate(kernel.code) if re.search(pattern, each.text)]
    for place, match in zip(places, re.finditer(pattern, text, re.MULTILINE), strict=True):
        if matters(kernel, place):
            yield match[0].strip(), text[: match.start()] + change(match[0]) + text[match.end() :]


WITHOUT = (
    ('flat', 'a dropped barrier'),  # a warp knows all of its labels
    ('flat', 'a shuffle over half the distance'),
    ('a thread per place', 'a shuffle over half the distance'),  # redux.sync in its place
)


BY_DEFAULT = {
    'a dropped barrier': ('a thread per row',),
    'a load or store without its mask': ('tiles', 'flat'),
    'a load or store of the next element': ('tiles of halves',),
    'a shuffle over half the distance': ('a softmax',),
}


@pytest.mark.parametrize(
    'case, mutant',
    [
        pytest.param(case, mutant, marks=() if case in BY_DEFAULT[mutant] else pytest.mark.slow)
        for case, mutant in itertools.product(CASES, MUTANTS)
        if (case, mutant) not in WITHOUT
    ],
    ids=str,
)
def test_each_is_caught(driver, case, mutant):
    case, (pattern, change, matters) = CASES[case], MUTANTS[mutant]
    with use_backend('triton'):
        case()
        texts = list(dict.fromkeys(text for text, *_ in driver.launches))
        for text in texts:
            machine.module(text).reached.clear()
            machine.module(text).withheld.clear()
        case()
        mutants = [(text, *each) for text in texts for each in _mutants(text, pattern, change, matters)]
        survivors = []
        for text, line, changed in mutants:
            driver.edit = lambda given, text=text, changed=changed: changed if given == text else given
            try:
                case()
            except (Fault, AssertionError):
                continue
            survivors.append(line)
        assert mutants and not survivors
