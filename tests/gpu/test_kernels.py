"""Values and gradients of the compiled kernels, run in software through Triton's own JIT, against the float64 oracle."""

import itertools

import pytest
import torch

from focal_plugin import functional, use_backend
from tests.gpu.driver import needs_compiler
from tests.losses import iterations
from tests.oracle import check_focal, check_masks, check_softmax
from tests.oracle.check_variants import STATISTICS, check_statistics
from tests.oracle.inputs import generator, labels, predictions

pytestmark = needs_compiler
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
slow = lambda each: pytest.param(each, marks=pytest.mark.slow)  # noqa: E731
SOME = (*DTYPES[:2], slow(torch.float16))  # bfloat16 stands for both halves
ONE = (torch.bfloat16, slow(torch.float32), slow(torch.float16))  # whose accesses are the narrowest
ROWS = 150  # no tile divides it


@pytest.fixture(params=(90, 80), ids=('sm_90', 'sm_80'))
def driver(request, monkeypatch):
    """The launches of a test, in a stand-in for a GPU."""
    from tests.gpu.driver import install

    with use_backend('triton'):
        yield install(monkeypatch, request.param)


only_90 = pytest.mark.parametrize('driver', (90,), indirect=True, ids=('sm_90',))
slow_80 = pytest.mark.parametrize('driver', (90, slow(80)), indirect=True, ids=('sm_90', 'sm_80'))


def focal(pred, target, weight=None, **arguments):
    return check_focal.check('cpu', pred, target, weight, **arguments)


def dense(*shape):
    return torch.rand(shape, generator=generator(5))


def rand(*shape):
    return torch.rand(shape, generator=generator(3)) + 0.5


@slow_80
@pytest.mark.parametrize(
    'dtype, form',
    [
        pytest.param(*each, marks=pytest.mark.slow if torch.float16 in each or each == (torch.float32, 'dense') else ())
        for each in itertools.product(DTYPES, ('labels', 'dense'))
    ],
    ids=str,
)
@pytest.mark.parametrize('classes', (1, 3, 7, 8, 80, 365, slow(1203)))
def test_focal(driver, classes, dtype, form):
    rows = 40 if classes > 100 else ROWS
    target = labels(rows, classes=classes) if form == 'labels' else dense(rows, classes)
    focal(predictions(rows, classes).to(dtype), target)
    assert len(driver.launches) == 3  # parts of the sum, the sum, the gradient


@slow_80
@pytest.mark.parametrize('reduction', ('none', slow('sum')))
@pytest.mark.parametrize('dtype', ONE, ids=str)
@pytest.mark.parametrize('classes', (3, 80, 365))
def test_reductions(driver, classes, dtype, reduction):
    focal(predictions(40, classes).to(dtype), labels(40, classes=classes), reduction=reduction)


MAPS = {'odd sizes': (13, 21), 'a multiple of 2': (6, 9), 'a multiple of 8': (4, 10), 'a multiple of 16': (8, 12)}


@slow_80
@pytest.mark.parametrize('size', MAPS.values(), ids=MAPS)
@pytest.mark.parametrize('dtype', ONE, ids=str)
def test_maps(driver, size, dtype):
    """One map, and one of several anchors a place, as RetinaNet's."""
    height, width = size
    view = predictions(2, 80, height, width).to(dtype).permute(0, 2, 3, 1)
    _, grad = focal(view, labels(2, height, width, classes=80))
    assert grad.stride() == view.stride()
    anchors = predictions(2, 3 * 8, height, width).to(dtype).view(2, 3, 8, height, width).permute(0, 3, 4, 1, 2)
    focal(anchors, labels(2, height, width, 3, classes=8))


VIEWS = {
    'a storage offset of one element': lambda: predictions(ROWS * 80 + 1)[1:].view(ROWS, 80),
    'an offset, three classes': lambda: predictions(ROWS * 3 + 1)[1:].view(ROWS, 3),
    'a slice of rows and classes': lambda: predictions(70, 86)[1:-2, 3:-3],
    'transposed': lambda: predictions(80, 70).t(),
}


@slow_80
@pytest.mark.parametrize('make', VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize('dtype', ONE, ids=str)
def test_views(driver, make, dtype):
    whole = make()
    pred = torch.as_strided(whole._base.to(dtype), whole.shape, whole.stride(), whole.storage_offset())
    assert pred.storage_offset() == whole.storage_offset()
    leaf = pred.detach().requires_grad_()
    target = labels(len(pred), classes=pred.size(1))
    focal(pred, target)
    functional.sigmoid_focal_loss(leaf, target, reduction='none').sum().backward()  # read where it lies, not copied


EXTRAS = {
    'a weight per row': lambda n, c: dict(weight=rand(n)),
    'a weight per element': lambda n, c: dict(weight=rand(n, c)),
    'a weight per row of dense targets': lambda n, c: dict(weight=rand(n), target=dense(n, c)),
    'avg_factor, a tensor': lambda n, c: dict(avg_factor=torch.tensor([13.5])),
    'avg_factor, a number': lambda n, c: dict(avg_factor=7),
    'ignored rows': lambda n, c: dict(ignore_index=2, weight=rand(n)),
    'an alpha per class': lambda n, c: dict(alpha=rand(c) / 2),
    'another exponent': lambda n, c: dict(gamma=1.5),
    'probabilities': lambda n, c: dict(pred=dense(n, c), activated=True),
}


@slow_80
@pytest.mark.parametrize('extra', EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize('classes', (80, slow(3)))
@pytest.mark.parametrize('reduction', ('mean', slow('none')))
def test_other_arguments(driver, extra, classes, reduction):
    arguments = dict(pred=predictions(40, classes), target=labels(40, classes=classes)) | extra(40, classes)
    focal(**arguments, reduction=reduction)


@slow_80
@pytest.mark.parametrize('reduction', ('none', slow('sum')))
@pytest.mark.parametrize('dtype', SOME, ids=str)
@pytest.mark.parametrize('classes', (3, 21, 80))
def test_softmax(driver, classes, dtype, reduction):
    check_softmax.check('cpu', *check_softmax.inputs(40, classes, dtype=dtype), reduction=reduction)


@only_90
def test_a_softmax_longer_than_registers_hold(driver):
    check_softmax.check('cpu', *check_softmax.inputs(2, 17000))


@only_90
@pytest.mark.parametrize('capacity', (True, False), ids=('again', 'by the JIT'))
def test_a_second_launch_gives_the_same(monkeypatch, driver, capacity):
    from focal_plugin.kernels.triton import features

    monkeypatch.setattr(features, 'RELAUNCHES', capacity)
    pred, target = predictions(40, 80), labels(40, classes=80)
    first, second = focal(pred, target), focal(pred, target)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@slow_80
@pytest.mark.parametrize('shape', ((5, 7, 28, 28), slow((2, 2, 120, 131)), slow((6, 4, 1, 1))), ids=str)
def test_masks_by_channel(driver, shape):
    for layout in (torch.contiguous_format, torch.channels_last):
        check_masks.check_own_channel('cpu', shape, layout)


@slow_80
@pytest.mark.parametrize(
    'arguments', [slow(each) if i else each for i, each in enumerate(STATISTICS.values())],
    ids=STATISTICS,
)  # fmt: skip
@pytest.mark.parametrize('dtype', ONE, ids=str)
def test_statistics(driver, arguments, dtype):
    check_statistics('cpu', arguments, dtype)


@slow_80
@pytest.mark.parametrize(
    'layout', ('an NCHW map', *map(slow, ('a dense target', 'ignored rows', 'more classes than a tile')))
)
def test_statistics_that_are_gathered(driver, layout):
    iterations.check_iterations('cpu')
    iterations.check_gathered('cpu', layout)


@slow_80
@pytest.mark.parametrize('in_one_pass', (False, True))
def test_the_self_test_passes(driver, in_one_pass):
    from focal_plugin.kernels.triton import selftest

    assert selftest._verdict(torch.device('cpu'), in_one_pass) is None
    driver.edit = lambda text: text.replace('neg.f32', 'abs.f32')
    assert 'is off by' in str(selftest._verdict(torch.device('cpu'), in_one_pass))


@only_90
@pytest.mark.parametrize('classes', (3, slow(9), slow(16)), ids=['a row per thread', 'flat', 'tiles'])
def test_nan_reaches_no_neighbour(driver, classes):
    """In a plain sum two neighbours share a reciprocal, maybe of two rows: where one is ignored, or each has a value of its
    own, they may not."""
    check_focal.check_nan_reaches_no_neighbour(classes)
