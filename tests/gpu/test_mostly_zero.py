"""Dense targets of which nearly all are 0, as heat maps are: what has no other is computed as negatives."""

import pytest
import torch

from focal_plugin import functional, use_backend
from tests.gpu import driver, nvrtc
from tests.oracle.check_variants import check, check_in_one_pass
from tests.oracle.inputs import generator, logits, predictions
from tests.variants import VARIANTS

slow = lambda each: pytest.param(each, marks=pytest.mark.slow)  # noqa: E731
INSTALL = {'triton': driver.install, 'cuda': nvrtc.install}
INF, NAN = float('inf'), float('nan')
ROWS = 40  # of 80 classes: three tiles of 1024 logits and a part of one
# Values by their place: alone in a tile, in one of its last threads, beside others.
TARGETS = {
    'none but 0': {},
    'an object': {1234: 1.0},
    'objects and what is around them': {700: 0.3, 701: 1.0, 702: 0.3, 3197: 1e-6, 3199: 1.0},
    'objects as far as one tile goes': {place: 1.0 for place in range(3, 1024, 127)},
}


@pytest.fixture(
    params=(pytest.param('triton', marks=driver.needs_compiler), pytest.param('cuda', marks=nvrtc.needs_nvrtc)),
    autouse=True,
)
def backend(request, monkeypatch):
    with use_backend(request.param):
        INSTALL[request.param](monkeypatch, 90)
        yield request.param


def zeros_but(places: dict[int, float], *shape) -> torch.Tensor:
    target = torch.zeros(shape)
    for place, value in places.items():
        target.view(-1)[place] = value
    return target


@pytest.mark.parametrize('dtype', (torch.bfloat16, slow(torch.float32), slow(torch.float16)), ids=str)
@pytest.mark.parametrize('places', TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize('name', ('gaussian_focal', slow('varifocal')))
def test_values_and_gradients(name, places, dtype):
    pred, target, arguments = predictions(ROWS, 80).to(dtype), zeros_but(places, ROWS, 80), VARIANTS[name].arguments(80)
    weight = torch.rand(ROWS, generator=generator(3)) + 0.5
    check(name, 'cpu', pred, target.to(dtype), weight, reduction='mean', **arguments)
    check(name, 'cpu', pred, target, reduction='none', **arguments)
    if name == 'gaussian_focal':
        check(name, 'cpu', pred.sigmoid(), target.to(dtype), weight, probabilities=True, reduction='sum', **arguments)


@pytest.mark.parametrize('size', ((13, 21), slow((8, 12))), ids=str)
def test_maps_in_one_pass(size):
    height, width = size
    pred = predictions(2, 80, height, width).permute(0, 2, 3, 1)
    target = zeros_but({5: 1.0, 12_345: 0.5}, 2, 80, height, width).permute(0, 2, 3, 1)
    check_in_one_pass('varifocal', 'cpu', pred, target, reduction='sum', **VARIANTS['varifocal'].arguments(80))


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize('arguments', ({}, dict(alpha=0.5), dict(alpha=4.0, neg_weight=0.0)), ids=str)
def test_every_logit(arguments, dtype):
    """Infinite ones and NaN too."""
    pred = logits().to(dtype)[:, None]
    arguments = VARIANTS['gaussian_focal'].arguments(1) | arguments
    check('gaussian_focal', 'cpu', pred, torch.zeros_like(pred), reduction='none', **arguments)


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize('alpha', (2.0, slow(0.5), slow(1.0), slow(4.0)))
def test_every_probability(alpha, dtype):
    """From 0 to 1, close to both: the ends of the series that stands for the logarithm are among them."""
    small = torch.logspace(-6, -1, 300, dtype=torch.float64)
    pred = torch.cat((small, 1 - small, torch.linspace(0, 1, 401))).to(dtype)[:, None]
    arguments = VARIANTS['gaussian_focal'].arguments(1) | dict(alpha=alpha)
    check('gaussian_focal', 'cpu', pred, torch.zeros_like(pred), probabilities=True, reduction='none', **arguments)


def of_both(name: str, pred: torch.Tensor, target: torch.Tensor, weight=None) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = pred.clone().requires_grad_()
    loss = functional.FUNCTIONS[name](
        leaf, target, weight, reduction='none', **VARIANTS[name].arguments(80), **VARIANTS[name].of_logits
    )
    loss.sum().backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize('name', ('gaussian_focal', 'varifocal'))
def test_a_target_of_nan_is_no_zero(name):
    """In its place alone the loss and the gradient are NaN."""
    target = zeros_but({1234: NAN, 2999: -NAN}, ROWS, 80)
    for each in of_both(name, predictions(ROWS, 80), target):
        assert each.view(-1).isnan().nonzero().flatten().tolist() == [1234, 2999]


def test_a_zero_with_a_sign_is_a_zero():
    pred = predictions(ROWS, 80)
    plain, signed = (of_both('gaussian_focal', pred, zero.expand(ROWS, 80)) for zero in torch.tensor([0.0, -0.0]))
    for one, other in zip(plain, signed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=0)


def test_a_weight_of_zero_silences_an_infinite_logit():
    pred, weight = predictions(ROWS, 80), torch.ones(ROWS, 80)
    pred[3, 5], pred[7, 9], weight[3, 5] = INF, INF, 0
    loss, grad = of_both('gaussian_focal', pred, torch.zeros(ROWS, 80), weight)
    assert (loss[3, 5], grad[3, 5], loss[7, 9]) == (0, 0, INF)
    assert loss.isinf().sum() == 1 and not loss.isnan().any() and grad.isfinite().all()


@pytest.mark.parametrize('dtype', (torch.int64, torch.float64), ids=str)
def test_targets_of_other_types(dtype):
    pred, target = predictions(ROWS, 80), zeros_but(TARGETS['an object'], ROWS, 80)
    of_floats, of_others = (of_both('gaussian_focal', pred, each) for each in (target, target.to(dtype)))
    for one, other in zip(of_floats, of_others, strict=True):
        assert torch.equal(one, other)


def test_what_else_is_in_a_warp_changes_no_bit(backend):
    """Of the cuda backend, which goes by the logit: Triton's goes by the tile, with another formula for its zeros."""
    if backend == 'triton':
        pytest.skip('goes by the tile')
    pred, target = predictions(ROWS, 80), zeros_but(TARGETS['objects and what is around them'], ROWS, 80)
    alone, among = of_both('gaussian_focal', pred, torch.zeros(ROWS, 80)), of_both('gaussian_focal', pred, target)
    for one, other in zip(alone, among, strict=True):
        assert torch.equal(one[target == 0], other[target == 0]) and not torch.equal(one, other)
