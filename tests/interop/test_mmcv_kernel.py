"""mmcv's kernel and ours: the same numbers where mmcv's arithmetic is sound, and where it is not, what it does there.

The faults are facts about mmcv 2.1's sigmoid_focal_loss_cuda_kernel.cuh. A test of one that fails means that mmcv has
changed, not that we have.
"""

import numpy as np
import pytest
import torch

from focal_plugin import functional
from tests.interop import mmcv_kernel
from tests.oracle import assert_accurate, sigmoid_focal_loss

POSITIVE, NEGATIVE = 0, 1  # labels of a single class


@pytest.fixture(
    params=[
        'cpu',
        pytest.param(
            'cuda',
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')],
        ),
    ]
)
def device(request):
    return request.param


def one_class(logits, label, dtype, device):
    """A column of logits of one class, and as many labels."""
    x = torch.tensor(logits, dtype=dtype, device=device).reshape(-1, 1)
    return x, torch.full((len(x),), label, device=device)


def flat(tensor):
    return tensor.cpu().double().flatten().tolist()


@pytest.mark.parametrize(
    'logits, labels, loss, grad',
    [
        ([[1, 0], [0, 1]], [0, 1], 0.13562961, [[-0.00657264, 0.11185755], [0.11185755, -0.00657264]]),
        (
            [[1, 0, -1], [0, 1, 2]],
            [2, 1],
            1.10251057,
            [[0.28808805, 0.11185755, -0.09602935], [0.11185755, -0.00657264, 0.40376765]],
        ),
        (
            [[1e-6, 2e-6, 3e-6], [4e-6, 5e-5, 6e-4], [7e-3, 8e-2, 9e-1]],
            [1, 2, 0],
            0.42287254,
            [
                [0.07457182, -0.02485716, 0.07457201],
                [0.07457211, 0.07457669, -0.02483728],
                [-0.02462499, 0.08277918, 0.18050370],
            ],
        ),
    ],
    ids=['two classes', 'three classes', 'small logits'],
)
def test_published_values(device, logits, labels, loss, grad):
    """What mmcv's own tests expect of its op: gamma 2, alpha 0.25, the mean over the rows. Ours gives it as well.

    The figures are float32's, printed with eight decimals.
    """
    x = torch.tensor(logits, dtype=torch.float32, device=device, requires_grad=True)
    labels = torch.tensor(labels, device=device)
    rows = len(x)
    assert float(mmcv_kernel.forward(x, labels).sum() / rows) == pytest.approx(loss, rel=1e-6, abs=5e-9)
    np.testing.assert_allclose((mmcv_kernel.backward(x, labels) / rows).cpu(), grad, rtol=1e-6, atol=5e-9)
    ours = functional.sigmoid_focal_loss(x, labels, reduction='sum') / rows
    ours.backward()
    assert ours.item() == pytest.approx(loss, rel=1e-6, abs=5e-9)
    np.testing.assert_allclose(x.grad.cpu(), grad, rtol=1e-6, atol=5e-9)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(
    'gamma, alpha, weighted',
    [
        (2.0, 0.25, False),
        (2.0, 0.25, True),
        (0.0, 0.5, False),
        (0.5, 0.25, False),
        (1.5, 0.75, True),
        (5.0, 0.25, False),
        (2.0, 1.0, False),
        (2.0, 0.0, True),
    ],
    ids=[
        *(
            'the defaults',
            'class weights',
            'gamma 0: weighted cross-entropy',
            'gamma below 1',
            'odd gamma, class weights',
        ),
        *('large gamma', 'alpha 1: no negatives', 'alpha 0: no positives, class weights'),
    ],
)
def test_agrees_with_ours(device, dtype, gamma, alpha, weighted):
    """Within the rounding of mmcv's 1 - p, and of its float32 expf in float64, at logits within +-10."""
    generator = torch.Generator().manual_seed(0)
    classes = 7
    x = torch.linspace(-10, 10, 203 * classes, dtype=dtype)[torch.randperm(203 * classes, generator=generator)]
    x = x.reshape(-1, classes).to(device).requires_grad_()
    labels = torch.randint(0, classes + 1, (len(x),), generator=generator).to(device)
    weight = torch.rand(classes + 1, dtype=dtype, generator=generator).to(device) if weighted else None
    upstream = torch.randn(x.shape, dtype=dtype, generator=generator).to(device)

    rows = None if weight is None else weight[labels]
    ours = functional.sigmoid_focal_loss(x, labels, rows, gamma=gamma, alpha=alpha, reduction='none')
    ours.backward(upstream)
    exact = sigmoid_focal_loss(x, labels, rows, gamma=gamma, alpha=alpha, reduction='none', upstream=upstream)
    p = torch.sigmoid(x.detach().double()).cpu().numpy()
    cancellation = (gamma + 2) * torch.finfo(dtype).eps / np.minimum(p, 1 - p)
    value_tolerance = cancellation
    if dtype == torch.float64:  # the forward's expf, of an argument rounded to float32
        value_tolerance = cancellation + (gamma + 2) * torch.finfo(torch.float32).eps * (
            1 + x.detach().abs().cpu().numpy() / 2
        )

    mmcv = mmcv_kernel.forward(x, labels, weight, gamma, alpha)
    within(ours.detach(), mmcv, value_tolerance * np.abs(exact.value))
    mmcv = mmcv_kernel.backward(x, labels, weight, gamma, alpha) * upstream
    within(x.grad, mmcv, cancellation * np.abs(exact.grad))


def within(ours, theirs, tolerance):
    difference = (ours.double() - theirs.double()).abs().cpu().numpy()
    worst = np.unravel_index(np.argmax(difference - tolerance), difference.shape)
    assert difference[worst] <= tolerance[worst], f'{ours[worst]} and {theirs[worst]} at {worst}'


def test_float32_loss_of_a_confident_negative_jumps(device):
    """At 17 p rounds to 1, and log(FLT_MIN) = -87.3 takes the place of log(1 - p) = -17."""
    x, labels = one_class([16.0, 17.0, 40.0], NEGATIVE, torch.float32, device)
    assert flat(mmcv_kernel.forward(x, labels)) == pytest.approx([11.957, 65.502, 65.502], abs=1e-3)
    assert_accurate(
        functional.sigmoid_focal_loss(x, labels, reduction='none'), [[11.9999973836], [12.7499989754], [30.0]]
    )


def test_float32_loss_of_a_lost_positive_stands_still(device):
    """Below -87.3 p is held at FLT_MIN: 0.25 * 87.3 whatever the logit."""
    x, labels = one_class([-87.0, -90.0, -100.0], POSITIVE, torch.float32, device)
    assert flat(mmcv_kernel.forward(x, labels)) == pytest.approx([21.75, 21.834, 21.834], abs=1e-3)
    assert_accurate(functional.sigmoid_focal_loss(x, labels, reduction='none'), [[21.75], [22.5], [25.0]])


def test_float32_easy_positive_loses_its_digits(device):
    """(1 - p)^2 with p rounded to float32: 60% too much at 15, nothing left at 17."""
    x, labels = one_class([15.0, 17.0], POSITIVE, torch.float32, device)
    exact = sigmoid_focal_loss(x, labels, reduction='none')
    ratio = np.array(flat(mmcv_kernel.forward(x, labels))) / exact.value.ravel()
    assert ratio == pytest.approx([1.598, 0], abs=1e-2)
    assert_accurate(functional.sigmoid_focal_loss(x, labels, reduction='none'), exact.value)


def test_float16_loss_is_inf_and_gradient_nan(device):
    """FLT_MIN is 0 in float16, so nothing keeps log from 0: from 8.32 on, where p rounds to 1 (9.39: mmcv#1488)."""
    x, labels = one_class([8.3125, 8.3203125, 9.39, 100.0], NEGATIVE, torch.float16, device)
    assert np.isfinite(flat(mmcv_kernel.forward(x, labels))).tolist() == [True, False, False, False]
    assert np.isposinf(flat(mmcv_kernel.forward(x, labels))[1:]).all()
    assert np.isnan(flat(mmcv_kernel.backward(x, labels))).tolist() == [False, True, True, True]
    check_ours(x, labels)


def test_float16_loss_of_a_right_positive_is_nan(device):
    """The same inf, multiplied by the flag 0 of the case that does not apply."""
    x, labels = one_class([9.39, 20.0], POSITIVE, torch.float16, device)
    assert np.isnan(flat(mmcv_kernel.forward(x, labels))).all()
    assert np.isnan(flat(mmcv_kernel.backward(x, labels))).all()
    check_ours(x, labels)


def check_ours(x, labels):
    x = x.clone().requires_grad_()
    exact = sigmoid_focal_loss(x, labels, reduction='none')
    ours = functional.sigmoid_focal_loss(x, labels, reduction='none')
    ours.sum().backward()
    assert_accurate(ours.detach(), exact.value)
    assert_accurate(x.grad, exact.grad)


def test_float64_forward_has_the_precision_of_float32(device):
    """It calls expf; the backward calls exp."""
    x, labels = one_class(np.linspace(-5, 5, 101), NEGATIVE, torch.float64, device)
    exact = sigmoid_focal_loss(x, labels, reduction='none')
    value_error = np.abs(mmcv_kernel.forward(x, labels).cpu().numpy() / exact.value - 1).max()
    grad_error = np.abs(mmcv_kernel.backward(x, labels).cpu().numpy() / exact.grad - 1).max()
    assert 1e-8 < value_error < 1e-6
    assert grad_error < 1e-12
    assert_accurate(functional.sigmoid_focal_loss(x, labels, reduction='none'), exact.value)


def test_background_rows_read_past_a_class_weight(device):
    """Users pass one weight per class; the element after them, here a NaN, multiplies the background rows."""
    x, labels = torch.zeros(2, 3, device=device), torch.tensor([1, 3], device=device)
    weight = torch.tensor([1.0, 2.0, 3.0, float('nan')], device=device)
    assert mmcv_kernel.forward(x, labels, weight).isnan().tolist() == [[False] * 3, [True] * 3]
