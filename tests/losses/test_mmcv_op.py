"""Where no compiler is found for a GPU: mmdet's own way, by mmcv's op, for what it takes; here the CPU is that GPU."""

import logging
from types import SimpleNamespace
from unittest import mock

import mmcv.ops.focal_loss
import pytest
import torch
from mmdet.models.losses import FocalLoss
from torch import Tensor

from focal_plugin import backend, use_backend
from focal_plugin.cut import recording
from focal_plugin.losses import (
    FusedFocalCustomLoss,
    FusedFocalLoss,
    FusedMaskFocalLoss,
    FusedPolyFocalLoss,
    base,
    mmcv_op,
)
from focal_plugin.maps import Map
from tests.interop import mmcv_kernel
from tests.oracle.inputs import labels, predictions
from tools.benchmarks.bytes_moved import OnGPU

C = 5


def on_gpu(forward):
    """A forward of mmdet's, which asks whether there is a GPU and the logits are on it."""

    def told(*args, **kwargs):
        with OnGPU(), mock.patch('torch.cuda.is_available', lambda: True):
            return forward(*args, **kwargs)

    return told


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """A GPU without a compiler; what is called of mmcv's op, whose kernels run on the CPU."""
    called = []

    def forward(input, target, weight, output, gamma, alpha):
        called.append('forward')
        with torch._C.DisableTorchFunction():
            output.copy_(mmcv_kernel.forward(input, target, None, gamma, alpha))

    def backward(input, target, weight, grad_input, gamma, alpha):
        called.append('backward')
        grad_input.copy_(mmcv_kernel.backward(input, target, None, gamma, alpha))

    op = SimpleNamespace(sigmoid_focal_loss_forward=forward, sigmoid_focal_loss_backward=backward)
    monkeypatch.setattr(mmcv.ops.focal_loss, 'ext_module', op)
    monkeypatch.setattr(FocalLoss, 'forward', on_gpu(FocalLoss.forward))
    for name, value in {'GPUS': ('cpu',), 'HAS_TRITON': False, 'HAS_NVRTC': False, 'HAS_NATIVE': False}.items():
        monkeypatch.setattr(backend, name, value)
    monkeypatch.setattr(base, 'HAS_COMPILER', False)
    mmcv_op._runs.cache_clear()
    yield called
    mmcv_op._runs.cache_clear()


def rows(dtype=torch.float32) -> tuple[Tensor, Tensor]:
    return predictions(40, C).to(dtype).requires_grad_(), labels(40, classes=C)


def test_rows_that_are_never_held_do_not(calls):
    convolution, features = torch.nn.Conv2d(4, 3 * C, 1), torch.randn(2, 4, 4, 5)
    target = labels(2 * 3 * 4 * 5, classes=C)
    with recording(convolution, 2**10, False) as cut:
        rows = convolution(features).permute(0, 2, 3, 1).reshape(-1, C)
        losses = dict(loss_cls=FusedFocalLoss()(rows, target, avg_factor=9.0))
    found = cut.losses(losses)['loss_cls']
    found.backward()
    assert not calls
    plain = convolution(features).permute(0, 2, 3, 1).reshape(-1, C)
    torch.testing.assert_close(found, FocalLoss()(plain, target, avg_factor=9.0))
    with pytest.raises(TypeError, match='a copy of all is not known of the class logits'):
        rows.tensor()


@pytest.mark.parametrize(
    'weight, reduction, avg_factor',
    [(None, 'mean', None), (torch.rand(40), 'mean', 7.0), (torch.rand(40 * C), 'sum', None), (None, 'none', None)],
    ids=['plain', 'a weight per row and avg_factor', 'a flat weight', 'no reduction'],
)
@pytest.mark.parametrize('dtype', mmcv_op.DTYPES)
def test_labels_go_mmdets_way(calls, weight, reduction, avg_factor, dtype):
    """The same bits, and the same calls of the op."""
    FusedFocalLoss()(*rows())  # which tries the op
    found = []
    for kind in (FusedFocalLoss, FocalLoss):
        pred, target = rows(dtype)
        calls.clear()
        loss = kind(use_sigmoid=True, gamma=1.5, alpha=0.4, reduction=reduction, loss_weight=3.0)
        value = loss(pred, target, weight, avg_factor=avg_factor)
        value.sum().backward()
        assert calls == ['forward', 'backward']
        found.append((value, pred.grad))
    torch.testing.assert_close(*found, rtol=0, atol=0, equal_nan=True)  # halves of which the op makes NaN


def test_the_rows_of_a_zero_copy_head_do_too(calls):
    maps = predictions(2, 3 * C, 4, 5).requires_grad_()
    target = labels(2 * 3 * 4 * 5, classes=C)
    FusedFocalLoss()(Map(maps).permute(0, 2, 3, 1).reshape(-1, C), target, avg_factor=9.0).backward()
    assert calls[-2:] == ['forward', 'backward']
    grad, maps.grad = maps.grad, None
    FocalLoss()(maps.permute(0, 2, 3, 1).reshape(-1, C), target, avg_factor=9.0).backward()
    assert torch.equal(grad, maps.grad)


@pytest.mark.parametrize(
    'loss, call',
    [
        (FusedFocalLoss(ignore_index=2), lambda pred, target: (pred, target)),
        (FusedFocalLoss(class_weight=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), lambda pred, target: (pred, target)),
        (FusedFocalLoss(activated=True), lambda pred, target: (pred.sigmoid(), target)),
        (FusedFocalLoss(alpha=None), lambda pred, target: (pred, target)),
        (FusedFocalLoss(), lambda pred, target: (pred[:0], target[:0])),
        (FusedFocalLoss(), lambda pred, target: (pred.bfloat16(), target)),
        (FusedFocalLoss(), lambda pred, target: (pred, target.int())),
        (FusedFocalLoss(), lambda pred, target: (pred, torch.rand(40, C))),
        (FusedFocalLoss(), lambda pred, target: (pred, target, torch.rand(40, 1))),
        (FusedFocalLoss(), lambda pred, target: (pred.view(2, 20, C), target.view(2, 20))),
        (FusedPolyFocalLoss(), lambda pred, target: (pred, target)),
        (FusedFocalCustomLoss(num_classes=C), lambda pred, target: (pred, target)),
        (
            FusedMaskFocalLoss(),
            lambda pred, target: (pred.view(2, C, 4, 5), torch.ones(2, 4, 5), torch.tensor([0, 3])),
        ),
    ],
    ids=[
        'ignore_index', 'class_weight', 'probabilities', 'no alpha', 'no rows', 'bfloat16, which the op does not take',
        'labels that are int32',
        'a dense target', 'a weight with two dimensions', 'rows with two dimensions', 'another loss',
        'one that mmdet computes without the op', 'masks',
    ],
)  # fmt: skip
def test_the_torch_backend_serves_what_the_op_does_not_take(calls, loss, call):
    arguments = call(*rows())
    value = loss(*arguments)
    with use_backend('torch'):
        assert torch.equal(value, loss(*arguments))
    assert not calls


def test_a_forced_backend_serves_itself(calls):
    with use_backend('torch'):
        FusedFocalLoss()(*rows())
    assert not calls


def test_an_mmcv_without_cuda_leaves_it_to_the_torch_backend(calls, monkeypatch, caplog):
    def missing(*args, **kwargs):
        raise RuntimeError('sigmoid_focal_loss_forward_impl: implementation for device cuda:0 not found.')

    monkeypatch.setattr(mmcv.ops.focal_loss.ext_module, 'sigmoid_focal_loss_forward', missing)
    pred, target = rows()
    backend.warn_if_slow.cache_clear()
    value = FusedFocalLoss()(pred, target)
    with use_backend('torch'):
        assert torch.equal(value, FusedFocalLoss()(pred, target))
    assert 'the torch backend serves on cpu' in caplog.text
    backend.warn_if_slow.cache_clear()


def test_it_is_said_once(calls, caplog):
    with caplog.at_level(logging.WARNING, 'focal_plugin'):
        for _ in range(2):
            FusedFocalLoss()(*rows())
    (said,) = caplog.messages
    assert said.startswith('There is neither Triton here') and "mmcv's op serves on cpu for labels" in said


def test_a_mistake_is_said_as_ever(calls):
    with pytest.raises(TypeError, match='pred'):
        FusedFocalLoss()([[0.0]], torch.zeros(1, dtype=torch.int64))
