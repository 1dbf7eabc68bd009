"""What the cuda backend promises beside values and gradients (test_any_two.py), of its kernels run in software."""

import re

import pytest
import torch

from focal_plugin import functional, use_backend
from focal_plugin.losses import FusedFocalLoss
from focal_plugin.rows import Rows
from tests.gpu.nvrtc import needs_nvrtc
from tests.oracle import check_focal, check_masks, check_softmax
from tests.oracle.check_variants import STATISTICS, check_statistics
from tests.oracle.inputs import C, labels, predictions

pytestmark = needs_nvrtc
slow = lambda each: pytest.param(each, marks=pytest.mark.slow)  # noqa: E731
HALF = (torch.bfloat16, slow(torch.float32), slow(torch.float16))


@pytest.fixture(params=(90, slow(80)), ids=('sm_90', 'sm_80'))
def driver(request, monkeypatch):
    """The launches of a test, in a stand-in for a GPU."""
    from tests.gpu.nvrtc import install

    with use_backend('cuda'):
        yield install(monkeypatch, request.param)


SIZES = {'odd': (13, 21), 'of 4 k places': (6, 10), 'of 8 k places': (4, 10), 'of many tiles': (40, 72)}


@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('dtype', HALF, ids=str)
def test_maps_are_read_where_they_lie(driver, size, dtype):
    """Anchors of a place have classes of their own; the gradient lies as the logits do."""
    height, width = size
    maps = predictions(2, 3 * 8, height, width).to(dtype)
    view = maps.view(2, 3, 8, height, width).permute(0, 3, 4, 1, 2)
    _, grad = check_focal.check('cpu', view, labels(2, height, width, 3, classes=8))
    assert grad.stride() == view.stride() and len(driver.launches) == 3


def widths(text: str, access: str) -> set[int]:
    """Of the accesses of global memory in a PTX, in bits."""
    found = re.findall(rf'{access}\.global\.(?:v(\d)\.)?[a-z](\d+)', text)
    return {int(count or 1) * int(width) for count, width in found}


@pytest.mark.parametrize(('dtype', 'bits'), ((torch.float32, 128), (torch.bfloat16, 64)), ids=str)
def test_four_logits_of_a_map_are_read_and_written_at_a_time(driver, dtype, bits):
    maps = predictions(2, 80, 8, 12).to(dtype)
    check_focal.check('cpu', maps.permute(0, 2, 3, 1), labels(2, 8, 12, classes=80))
    forward, _, backward = (text for _, text, _ in driver.launches)
    assert all(bits in widths(text, 'ld') for text in (forward, backward)) and bits in widths(backward, 'st')


@pytest.mark.parametrize('classes', (1, 3, 8, 80, 365))
@pytest.mark.parametrize('reduction', ('sum', 'none'))
def test_contiguous_rows(driver, classes, reduction):
    check_focal.check('cpu', predictions(150, classes).bfloat16(), labels(150, classes=classes), reduction=reduction)


@pytest.mark.parametrize('classes', (3, 21, 80, slow(1203), slow(2500)), ids='{} classes'.format)
@pytest.mark.parametrize('reduction', ('sum', slow('none')))
def test_a_softmax_over_few_and_many_classes(driver, classes, reduction):
    """By one thread, by some of a warp that hold it, by all of a warp that read it again."""
    check_softmax.check('cpu', *check_softmax.inputs(20, classes), reduction=reduction)


@pytest.mark.parametrize('holds', (check_focal.check, check_softmax.check), ids=('sigmoid', 'softmax'))
def test_a_weight_per_row_of_rows_that_do_not_join(driver, holds):
    """They are copied; the weight's copy stays one number per row."""
    pred, target = predictions(4, 6, 4, 6, C)[::2, ::2, ::2, ::2], labels(2, 3, 2, 3, classes=C - 1)
    holds('cpu', pred, target, labels(2, 3, 2, 3, seed=2) + 0.5, reduction='none')


@pytest.mark.parametrize(('pred', 'value', 'grad'), check_softmax.LIMITS.values(), ids=check_softmax.LIMITS)
def test_infinite_logits_of_a_softmax_give_the_limit(driver, pred, value, grad):
    check_softmax.check_limit('cpu', pred, value, grad, gamma=2.0)


@pytest.mark.parametrize('shape', ((5, 7, 28, 28), slow((2, 2, 120, 131)), slow((6, 4, 1, 1))), ids=str)
@pytest.mark.parametrize('layout', (torch.contiguous_format, torch.channels_last), ids=str)
def test_masks_in_the_channels_of_their_classes(driver, shape, layout):
    check_masks.check_own_channel('cpu', shape, layout)


@pytest.mark.parametrize('dtype', HALF, ids=str)
def test_few_long_rows_are_shared_among_threads(driver, dtype):
    """A thread would go through a row of 1300 by itself."""
    pred, scores = predictions(3, 1300).to(dtype), torch.rand(3, generator=torch.Generator().manual_seed(1))
    target = (labels(3, classes=1300), scores)
    found = functional.quality_focal_loss(pred, target, reduction='none')
    assert found.shape == (3,) and found.dtype == dtype and driver.launches[0][2][0] > 1
    with use_backend('torch'):
        exact = functional.quality_focal_loss(pred.double(), target, reduction='none')
    torch.testing.assert_close(found.double(), exact, rtol=1e-5 if dtype is torch.float32 else 8e-3, atol=0)


@pytest.mark.parametrize('masks_first', (True, False))
def test_a_launch_serves_what_it_was_made_to_write(driver, masks_first):
    """The logits of few and long rows are stored in float32 to be added up; those of a call of the same in their dtype."""
    pred, target = predictions(3, 1300).bfloat16(), torch.rand(3, 1300, generator=torch.Generator().manual_seed(1))
    calls = (functional.mask_focal_loss, functional.sigmoid_focal_loss)
    for loss in calls if masks_first else calls[::-1]:
        found = loss(pred, target, reduction='none')
        with use_backend('torch'):
            exact = loss(pred.double(), target, reduction='none')
        torch.testing.assert_close(found.double(), exact, rtol=8e-3, atol=0)


@pytest.mark.parametrize('arguments', STATISTICS.values(), ids=STATISTICS)
@pytest.mark.parametrize('dtype', HALF, ids=str)
def test_statistics(driver, arguments, dtype):
    check_statistics('cpu', arguments, dtype)


def test_the_levels_of_a_head_are_added_up_at_once(driver):
    maps = [predictions(2, 80, size, size).requires_grad_() for size in (8, 4, 2)]
    rows, target = Rows(maps, 80), labels(2 * (64 + 16 + 4), classes=80)
    loss = FusedFocalLoss()
    total = loss(rows, target, avg_factor=torch.tensor(5.0))
    assert [kernel for kernel, *_ in driver.launches] == ['elementwise'] * 3 + ['sum']
    with use_backend('native'):
        torch.testing.assert_close(total, loss(rows, target, avg_factor=torch.tensor(5.0)))


def test_a_second_run_gives_the_same_bits(driver):
    pred, target = predictions(40, 80), labels(40, classes=80)
    first, second = (check_focal.check('cpu', pred, target) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize('classes', (3, 8, 9, 80))
def test_nan_reaches_no_neighbour(driver, classes):
    check_focal.check_nan_reaches_no_neighbour(classes)


@pytest.mark.parametrize('in_one_pass', (False, True))
def test_the_self_test_passes_and_finds_a_fault(driver, in_one_pass):
    from focal_plugin.kernels.cuda import selftest

    assert selftest._verdict(torch.device('cpu'), in_one_pass) is None
    driver.edit = lambda text: text.replace('neg.f32', 'abs.f32')
    assert 'is off by' in str(selftest._verdict(torch.device('cpu'), in_one_pass))
