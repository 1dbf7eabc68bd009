"""Maps of any height and width move hardly more 32-byte sectors than their bytes need; `pytest -s` prints how many."""

import itertools

import pytest
import torch

from focal_plugin import functional, use_backend
from tests.gpu.driver import needs_compiler
from tests.gpu.memory import Global
from tests.gpu.sectors import SECTOR, Sectors
from tests.gpu.snippets import PUT, run

SIZES = (
    (100, 168),
    (50, 84),
    (25, 42),
    (13, 21),
    (13, 20),
)  # of RetinaNet's P3 to P6 on an image of 800 x 1344, 800 x 1280
MOST = 1.15  # of the sectors that as many bytes need at least
STORES_OVER = {
    ((25, 42), torch.bfloat16): '1.44',
    ((13, 21), torch.bfloat16): '1.49',
    ((13, 21), torch.float32): '1.23',
}


def maps(over: dict) -> list:
    """bfloat16 needs the most; fp32 is left to the long run."""
    slow = {torch.float32: [pytest.mark.slow]}
    failing = {case: [pytest.mark.xfail(reason=f'{factor} times', strict=True)] for case, factor in over.items()}
    cases = itertools.product(SIZES, (torch.bfloat16, torch.float32))
    return [pytest.param(*case, marks=[*slow.get(case[1], []), *failing.get(case, [])]) for case in cases]


BODIES = {
    'neighbours': ('ld.global.b64 %rd4, [%rd2];', 16, 16),
    'every second of them': ('ld.global.b32 %r3, [%rd2];' + PUT, 16, 16),
    'from between two multiples of a sector': ('setp.lt.s32 %p1, %r0, 63; @%p1 ld.global.b64 %rd4, [%rd2+8];', 17, 16),
    'one place': ('ld.global.b32 %r3, [%rd0];', 2, 1),
    'twice': ('ld.global.b32 %r3, [%rd2]; ld.global.b32 %r3, [%rd2+4];', 32, 16),
}  # fmt: skip


@pytest.mark.parametrize(('body', 'requests', 'programs'), BODIES.values(), ids=BODIES)
def test_sectors_are_counted(monkeypatch, body, requests, programs):
    """8 bytes per thread of two warps."""
    count = Sectors()
    monkeypatch.setattr(Global, 'watch', count)
    run(body, threads=64)
    assert (count.requests['inputs', 'ld'], count.programs('inputs', 'ld')) == (requests, programs)


def sectors(monkeypatch, pred, argument: str, name: str, step) -> tuple[float, float]:
    """Those that warps touch by an instruction, and programs by all of theirs, over what the bytes of pred need."""
    count, least = Sectors(), pred.numel() * pred.element_size() / SECTOR
    monkeypatch.setattr(Global, 'watch', count)
    step()
    return count.requests[argument, name] / least, count.programs(argument, name) / least


compiles = needs_compiler


def moved(monkeypatch, size, dtype) -> dict[str, tuple[float, float]]:
    """Of logits and gradients, for background alone: what a positive reads, it reads from anywhere."""
    from tests.gpu.driver import install

    install(monkeypatch, 90)
    logits = torch.randn(2, 16, *size).to(dtype).requires_grad_()
    pred, target = logits.permute(0, 2, 3, 1), torch.full((2, *size), 16)
    losses = []
    with use_backend('triton'):
        steps = {
            'logits, forward': ('x_ptr', 'ld', lambda: losses.append(functional.sigmoid_focal_loss(pred, target))),
            'logits, backward': ('x_ptr', 'ld', lambda: losses[0].backward(retain_graph=True)),
            'gradients': ('out_ptr', 'st', lambda: losses[0].backward()),
        }
        found = {what: sectors(monkeypatch, logits, *step) for what, step in steps.items()}
    for what, (requests, programs) in found.items():
        print(f'{size[0]} x {size[1]}, {dtype}, {what}: {requests:.2f} by requests, {programs:.2f} by programs')
    return found


@compiles
@pytest.mark.parametrize(('size', 'dtype'), maps({}), ids=str)
def test_programs_touch_few_sectors_more_than_their_bytes_need(monkeypatch, size, dtype):
    """The L1 cache keeps for them what another of their loads touched."""
    assert max(programs for _, programs in moved(monkeypatch, size, dtype).values()) <= MOST


@compiles
@pytest.mark.parametrize(('size', 'dtype'), maps(STORES_OVER), ids=str)
def test_stores_touch_few_sectors_more_than_their_bytes_need(monkeypatch, size, dtype):
    """They are written through: a sector that two of them share is written twice, in part.

    A warp stores 32 neighbours at a time, 64 bytes in bfloat16, which lie in three sectors unless they begin where one does.
    """
    assert moved(monkeypatch, size, dtype)['gradients'][0] <= MOST
