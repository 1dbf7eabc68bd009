"""A step on a device that is not there, whose kernels run in the machine: host and kernels as on a GPU, nothing left out."""

import pytest
import torch

from focal_plugin import functional, use_backend
from tests.gpu.driver import needs_compiler
from tests.losses import iterations
from tests.oracle import check_focal, check_masks, check_softmax
from tests.oracle.inputs import labels, predictions

pytestmark = [
    pytest.mark.stand_in,
    needs_compiler,
]
ROWS = 40


@pytest.fixture
def driver(monkeypatch):
    from tests.gpu import device
    from tests.gpu.driver import install

    device.take_for_a_gpu(monkeypatch)
    with use_backend('auto'):  # which takes Triton by itself
        yield install(monkeypatch, 90, of_cpu=False)


@pytest.fixture
def device(driver) -> str:
    from tests.gpu import device

    return device.NAME


def test_the_first_loss_of_a_device_tests_it(driver, device):
    pred = predictions(ROWS, 8).to(device).requires_grad_()
    functional.sigmoid_focal_loss(pred, labels(ROWS, classes=8).to(device)).backward()
    assert len(driver.launches) == 2 * 3 + 3 and pred.grad.device == pred.device
    pred.grad = None
    functional.sigmoid_focal_loss(pred, labels(ROWS, classes=8).to(device)).backward()
    assert len(driver.launches) == 2 * 3 + 3 + 3


def test_a_device_that_computes_something_else_is_refused(driver, device):
    driver.edit = lambda text: text.replace('neg.f32', 'abs.f32')
    with pytest.raises(RuntimeError, match=f'fails the self-test on {device}:0.* is off by'):
        functional.sigmoid_focal_loss(predictions(ROWS, 8).to(device), labels(ROWS, classes=8).to(device))


@pytest.mark.parametrize('classes', (3, 80))
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
def test_focal(device, dtype, classes):
    pred, target = predictions(ROWS, classes).to(dtype), labels(ROWS, classes=classes)
    check_focal.check(device, pred, target, torch.rand(ROWS), avg_factor=torch.tensor([3.0]).to(device))
    check_focal.check(device, pred, torch.rand(ROWS, classes), reduction='none')


def test_softmax(device):
    check_softmax.check(device, *check_softmax.inputs(ROWS, 21), reduction='sum')


def test_statistics(device):
    iterations.check_iterations(device)


def test_masks_by_channel(device):
    check_masks.check_own_channel(device, (5, 7, 8, 9), torch.channels_last)


def test_a_step_waits_for_nothing(device):
    from tests.gpu.device import waits

    alpha, avg_factor = torch.rand(8), torch.tensor(3.0).to(device)
    pred, target = predictions(ROWS, 8).to(device).requires_grad_(), labels(ROWS, classes=8).to(device)
    for _ in range(2):
        with waits() as noted:
            functional.sigmoid_focal_loss(pred, target, alpha=alpha, avg_factor=avg_factor).backward()
    assert noted == []
