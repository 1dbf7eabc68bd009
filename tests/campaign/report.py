"""Many calls, and what is wrong with them in words."""

from collections.abc import Iterator

from focal_plugin import backend
from tests.campaign.call import written
from tests.campaign.compare import faults
from tests.campaign.generate import call_of
from tests.campaign.shrink import shrunk

SEED = 0
CALLS = 50 if backend.INTERPRETING else 500  # of the default run
SHOWN = 20
LARGE = 30_000
"""Logits from which torch and ours share a call among threads."""


def wrong(backend: str, seed: int, calls: range) -> list[tuple[int, str]]:
    """(index, fault) of the calls with which something is wrong."""
    return list(_found(backend, seed, calls))


def _found(backend: str, seed: int, calls: range) -> Iterator[tuple[int, str]]:
    """The same, as they are found."""
    for index in calls:
        call = call_of(seed, index, backend)
        for fault in faults(call, backend, _shared(call))[:1]:
            yield index, fault


def check(backend: str, seed: int, calls: range) -> None:
    """Makes the calls; AssertionError shows the first faults, also those that were found before an error or Ctrl-C."""
    found = []
    try:
        found.extend(_found(backend, seed, calls))
    except BaseException as error:
        if not found:
            raise
        raise AssertionError(message(backend, seed, found, calls)) from error
    assert not found, message(backend, seed, found, calls)


def message(backend: str, seed: int, found: list[tuple[int, str]], calls: range) -> str:
    """The first faults, each with the command that makes its call again."""
    shown = '\n\n'.join(again(backend, seed, index) for index, _ in found[:SHOWN])
    return f'{len(found)} of {len(calls)} calls are wrong on {backend}, the first {min(len(found), SHOWN)}:\n\n{shown}'


def again(backend: str, seed: int, index: int) -> str:
    call = call_of(seed, index, backend)
    whole, found = written(call), faults(call, backend, _shared(call))
    if not found:
        return f'nothing is wrong with {whole}'
    small = shrunk(call, backend, _shared(call))
    return '\n'.join([
        f'python -m tests.campaign {backend} {seed} {index}', *(f'  {fault}' for fault in found), f'  whole: {whole}',
        f'  small: {written(small)}', *(f'  {fault}' for fault in faults(small, backend, _shared(small))),
    ])  # fmt: skip


def _shared(call) -> bool:
    return call.pred.numel() > LARGE
