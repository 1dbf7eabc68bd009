"""FusedFocalLoss as mmdet's heads use it, beside mmdet's FocalLoss."""

import inspect

import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS

from focal_plugin import functional
from focal_plugin.losses import FusedFocalLoss
from focal_plugin.math import SPECS

N, C = 33, 7


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(N, C, generator=generator)
    return pred, torch.randint(0, C + 1, (N,), generator=generator), torch.rand(N, generator=generator)


def both(config, pred, *args, **kwargs):
    """(loss, gradient) of mmdet's class and of ours."""
    results = []
    for kind in ('FocalLoss', 'FusedFocalLoss'):
        leaf = pred.clone().requires_grad_()
        loss = MODELS.build(dict(type=kind, **config))(leaf, *args, **kwargs)
        loss.sum().backward()
        results.append((loss.detach(), leaf.grad))
    return results


CALLS = {
    'RetinaNet: labels, weights, avg_factor': lambda p, t, w: (p, t, w, dict(avg_factor=9.0)),
    'FCOS: no weight': lambda p, t, w: (p, t, None, dict(avg_factor=9.0)),
    'SOLO: an int64 avg_factor': lambda p, t, w: (p, t, None, dict(avg_factor=torch.tensor(9))),
    'DETR: avg_factor of shape (1,)': lambda p, t, w: (p, t, w, dict(avg_factor=torch.tensor([9.0]))),
    'Sparse R-CNN: avg_factor 0': lambda p, t, w: (p, t, w, dict(avg_factor=0)),
    'PAA: none with avg_factor': lambda p, t, w: (p, t, w, dict(avg_factor=9.0, reduction_override='none')),
    'sum': lambda p, t, w: (p, t, w, dict(reduction_override='sum')),
    'FSAF: flat weights': lambda p, t, w: (p, t, w[:, None].expand(N, C).reshape(-1), dict(avg_factor=9.0)),
    'no background': lambda p, t, w: (p, t.clamp(max=C - 1), w, {}),
    'all background': lambda p, t, w: (p, torch.full_like(t, C), w, {}),
    'GLIP: one dimension': lambda p, t, w: (p[:, 0], (t == 0).float(), w, {}),
    'MaskFormer: one class, 1 is background': lambda p, t, w: (p[:, :1], (t > 3).long(), None, dict(avg_factor=9.0)),
    'a one-hot of four dimensions': lambda p, t, w: (p.view(1, 3, 11, C), (p > 0).float().view(1, 3, 11, C), None, {}),
}


@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS)
def test_calls_of_heads_equal_mmdet(call):
    pred, target, weight, kwargs = call(*inputs())
    for config in (dict(), dict(gamma=1.5, alpha=0.4, loss_weight=2.5)):
        (theirs, their_grad), (ours, our_grad) = both(config, pred, target, weight, **kwargs)
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-7)
        torch.testing.assert_close(
            our_grad, their_grad, rtol=2e-5, atol=1e-7 * float(their_grad.abs().max().clamp(min=1))
        )


def test_probabilities_equal_mmdet():
    pred, target, weight = inputs()
    (theirs, their_grad), (ours, our_grad) = both(dict(activated=True), pred.sigmoid(), target, weight, avg_factor=9.0)
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=0)
    torch.testing.assert_close(our_grad, their_grad, rtol=2e-5, atol=1e-7)


def test_yolo_layout_that_fails_in_mmdet():
    """YOLO's (B, A, C) one-hots with weights (B, A, 1): mmdet's class refuses them."""
    pred, target, weight = inputs()
    one_hot = torch.nn.functional.one_hot(target, C + 1)[:, :C].view(3, 11, C)
    ours = FusedFocalLoss()(pred.view(3, 11, C), one_hot, weight.view(3, 11, 1))
    torch.testing.assert_close(ours, FusedFocalLoss()(pred, target, weight))
    with pytest.raises(Exception):  # noqa: B017  whatever mmdet raises
        FocalLoss()(pred.view(3, 11, C), one_hot, weight.view(3, 11, 1))


def test_constructor_is_that_of_mmdet():
    ours, theirs = (inspect.signature(kind.__init__).parameters for kind in (FusedFocalLoss, FocalLoss))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
    ours, theirs = (inspect.signature(kind.forward).parameters for kind in (FusedFocalLoss, FocalLoss))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
    assert issubclass(FusedFocalLoss, FocalLoss)


@pytest.mark.parametrize('spec', SPECS.values(), ids=SPECS)
def test_defaults_are_written_once(spec):
    """The signature takes its defaults from math/; the registry class's docstring names the same."""
    function = inspect.signature(functional.sigmoid_focal_loss).parameters
    constructor = inspect.signature(FusedFocalLoss.__init__).parameters
    for name, default in spec.defaults.items():
        assert function[name].default == constructor[name].default == default
        line = inspect.getdoc(FusedFocalLoss).split(f'\n    {name} (')[1].split(' (')[0]
        assert f'Defaults to {default}.' in line
    assert f'arXiv {spec.paper}' in inspect.getdoc(functional.sigmoid_focal_loss)


def test_lists_are_buffers_that_checkpoints_do_not_hold():
    loss = FusedFocalLoss(gamma=[2.0] * C, alpha=[0.25] * C)
    assert {name for name, _ in loss.named_buffers()} == {'gamma', 'alpha'}
    assert loss.state_dict() == {}
    pred, target, weight = inputs()
    torch.testing.assert_close(loss(pred, target, weight), FusedFocalLoss()(pred, target, weight))


@pytest.mark.parametrize(
    'arguments, message',
    (
        (dict(use_sigmoid=False), 'use_sigmoid=True'),
        (dict(gamma=-1.0), 'gamma must be at least 0, got -1.0'),
        (dict(alpha=2.0), r'alpha must be in \[0, 1\], got 2.0'),
        (dict(reduction='avg'), "got 'avg'"),
    ),
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FusedFocalLoss(**arguments)


def test_a_list_of_another_length():
    pred, target, _ = inputs()
    with pytest.raises(ValueError, match='3 values of gamma or alpha for logits of 7 classes'):
        FusedFocalLoss(alpha=[0.1, 0.2, 0.3])(pred, target)


def test_bad_reduction_override():
    pred, target, _ = inputs()
    with pytest.raises(ValueError, match=r"reduction_override .*'avg'"):
        FusedFocalLoss()(pred, target, reduction_override='avg')


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
def test_autocast_hands_over_halves(dtype):
    """AMP: the head's convolution gives half logits; the loss takes them and gives a float32 loss."""
    layer, (pred, target, weight) = torch.nn.Linear(C, C), inputs()
    with torch.autocast('cpu', dtype=dtype):
        logits = layer(pred)
        assert logits.dtype == dtype
        loss = FusedFocalLoss()(logits, target, weight, avg_factor=3.0)
    assert loss.dtype == torch.float32
    (loss * 1024).backward()
    exact = FusedFocalLoss()(logits.float(), target, weight, avg_factor=3.0)
    torch.testing.assert_close(loss, exact, rtol=1e-5, atol=0)
    assert layer.weight.grad.isfinite().all()
