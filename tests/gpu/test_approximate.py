"""The promised numerics with the errors of a GPU's approximate instructions, which the machine else computes exactly.

NVIDIA's PTX manual bounds them: ex2.approx.ftz and lg2.approx.ftz a relative error of 2 ** -22, lg2 near 1, in (0.5, 2), an
absolute one of 2 ** -22, rcp.approx.ftz one unit in the last place, 2 ** -23, the division div.full two; subnormal results
become 0. AMD's v_exp_f32, v_log_f32 and v_rcp_f32 are off by one unit in the last place, less. Each is driven to its bound,
with either sign.
"""

import pytest
import torch

from focal_plugin import functional, use_backend
from tests.gpu import driver, instructions, nvrtc
from tests.oracle.check_softmax import check_every_margin
from tests.oracle.check_variants import ELEMENTWISE, check
from tests.oracle.inputs import logits
from tests.variants import VARIANTS

WIDTH = 8  # a row of one tile
BOUNDS = {'ex2': 2.0**-22, 'lg2': 2.0**-22, 'rcp': 2.0**-23, 'div': 2.0**-22}
SIGNS = {
    'all too large': (1, 1, 1, 1),
    'all too small': (-1, -1, -1, -1),
    'log the other way': (1, -1, 1, 1),
    'reciprocal the other way': (1, 1, -1, -1),
}
FEW = 2  # of SIGNS by default
CANCELLING = ('focal', 'iou_aware_bce')  # p - p^k is formed from a power near 1


def first(some, count: int = 1) -> list:
    """All, those behind the first few in the long run."""
    return [each if i < count else pytest.param(each, marks=pytest.mark.slow) for i, each in enumerate(some)]


@pytest.fixture(params=first(SIGNS.values(), FEW), ids=SIGNS, autouse=True)
def _errors(request, monkeypatch):
    for (name, bound), sign in zip(BOUNDS.items(), request.param, strict=True):
        monkeypatch.setitem(instructions.ERRORS, name, sign * bound)


@pytest.fixture(
    params=(
        pytest.param(('triton', driver), marks=driver.needs_compiler),
        pytest.param(('cuda', nvrtc), marks=nvrtc.needs_nvrtc),
    ),
    ids=('triton', 'cuda'),
    autouse=True,
)
def _machine(request, monkeypatch):
    name, stand_in = request.param
    stand_in.install(monkeypatch, 90)
    with use_backend(name):
        yield


def alone(dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows of one logit among others of -inf, which give neither loss nor gradient; the logit's place)."""
    values = logits().to(dtype)
    place = torch.arange(len(values)) % WIDTH
    pred = torch.full((len(values), WIDTH), float('-inf'), dtype=dtype)
    return pred.scatter_(1, place[:, None], values[:, None]), place


@pytest.mark.parametrize('dtype', first((torch.float32, torch.bfloat16, torch.float16), 2), ids=str)
@pytest.mark.parametrize('name', first(sorted(ELEMENTWISE, key=lambda name: name not in CANCELLING), len(CANCELLING)))
def test_every_logit_in_a_tile(name, dtype):
    """As a negative, computed in the tile, and as a positive, computed once a row; sums over a row for losses of rows.

    Without the logits at which p - clip has cancelled to less than 0.02: p, about 0.07, is off by 6e-7 of itself (2 ** -22
    of ex2, 2 ** -23 of rcp, four roundings), and the loss by 5 times as much over p - clip: the promised 1e-5 there.
    """
    pred, place = alone(dtype)
    parameters = dict(reduction='none') | VARIANTS[name].arguments(WIDTH)
    if name == 'asymmetric':
        probability = pred.gather(1, place[:, None]).double().sigmoid()[:, 0]
        kept = (probability - parameters['clip']).abs() > 0.02
        pred, place = pred[kept | probability.isnan()], place[kept | probability.isnan()]
    for target in (torch.full_like(place, WIDTH), place):
        check(name, 'cpu', pred, target, **parameters)


@pytest.mark.parametrize('dtype', first((torch.float32, torch.bfloat16)), ids=str)
@pytest.mark.parametrize('name', first(('focal', 'quality_focal')))
def test_the_sum_over_one_logit(name, dtype):
    """A plain sum has arithmetic of its own; every 31st logit, and the infinite ones and NaN."""
    pred, place = alone(dtype)
    parameters = dict(reduction='sum') | VARIANTS[name].arguments(WIDTH)
    for i in [*range(0, len(pred) - 5, 31), *range(len(pred) - 5, len(pred))]:
        check(name, 'cpu', pred[i : i + 1], torch.full_like(place[:1], WIDTH), **parameters)


@pytest.mark.parametrize('gamma', first((1.5, 0, 0.5, 1, 5)))
def test_exponents(gamma):
    pred, place = alone(torch.float32)
    for target in (torch.full_like(place, WIDTH), place):
        check('focal', 'cpu', pred, target, reduction='none', gamma=gamma, alpha=0.25)


@pytest.mark.parametrize('name', first(('focal', 'gaussian_focal')))
def test_soft_targets(name):
    pred = logits()[:-3].float()[:, None]
    for y in (1e-6, 0.3, 1.0):
        check(name, 'cpu', pred, torch.full_like(pred, y), reduction='none', **VARIANTS[name].arguments(1))


@pytest.mark.parametrize('gamma', first((2, 0.5)))
def test_softmax(gamma):
    check_every_margin('cpu', torch.float32, gamma)


def test_the_errors_arrive(monkeypatch):
    """Without them the results would be other ones."""
    pred, target = torch.linspace(-8, 8, 400).reshape(50, 8), torch.full((50,), 8)
    off = functional.sigmoid_focal_loss(pred, target, reduction='none')
    for name in BOUNDS:
        monkeypatch.setitem(instructions.ERRORS, name, 0.0)
    assert not torch.equal(off, functional.sigmoid_focal_loss(pred, target, reduction='none'))
