"""FusedGaussianFocalLoss as the heads of CenterNet call it, beside mmdet's GaussianFocalLoss."""

import inspect

import pytest
import torch
from mmdet.models.losses import GaussianFocalLoss
from mmdet.registry import MODELS

from focal_plugin.losses import FusedGaussianFocalLoss

ROWS = (torch.tensor([0, 3, 3, 7]), torch.tensor([1, 0, 0, 2]))  # one of them twice


def heatmap(*shape):
    """Logits, and a target with exact ones."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator)
    return torch.randn(shape, generator=generator), torch.where(target > 0.8, 1.0, target)


def both(config, pred, target, *args, **kwargs):
    results = []
    for kind in ('GaussianFocalLoss', 'FusedGaussianFocalLoss'):
        leaf = pred.clone().requires_grad_()
        loss = MODELS.build(dict(type=kind, **config))(leaf, target, *args, **kwargs)
        loss.sum().backward()
        results.append((loss.detach(), leaf.grad))
    return results


CONFIGS = [dict(), dict(alpha=1.5, gamma=3.0, loss_weight=0.5, pos_weight=0.25, neg_weight=0.75)]


@pytest.mark.parametrize('config', CONFIGS, ids=['defaults', 'all arguments'])
@pytest.mark.parametrize(
    'call',
    [
        dict(avg_factor=9),
        dict(),
        dict(reduction_override='sum'),
        dict(reduction_override='none'),
        dict(weight=torch.rand(2, 3, 4, 5)),
    ],
    ids=['CenterNet: avg_factor', 'mean', 'sum', 'none', 'weights'],
)
def test_heatmaps_equal_mmdet(config, call):
    """CornerNet's and CenterNet's call: probabilities of four dimensions."""
    pred, target = heatmap(2, 3, 4, 5)
    torch.testing.assert_close(*both(config, pred.sigmoid(), target, **call), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize('config', CONFIGS, ids=['defaults', 'all arguments'])
@pytest.mark.parametrize(
    'call', [dict(avg_factor=9), dict(), dict(reduction_override='sum')], ids=['avg_factor', 'mean', 'sum']
)
def test_positives_named_equal_mmdet(config, call):
    """CenterNet2's call. The weight, which mmdet passes over here, is passed over."""
    pred, target = heatmap(12, 3)
    results = both(config, pred.sigmoid(), target, *ROWS, torch.rand(12, 3), **call)
    torch.testing.assert_close(*results, rtol=2e-5, atol=1e-7)


def test_centernet2_without_objects():
    """Its head then hands over num_classes for every pixel: to mmdet (num_classes - 1)^4 times the loss of a zero."""
    pred, _ = heatmap(12, 3)
    with pytest.raises(ValueError, match=r'a dense target holds values in \[0, 1\], got values from 4 to 4'):
        FusedGaussianFocalLoss()(pred.sigmoid(), torch.full((12, 3), 4), avg_factor=1.0)


@pytest.mark.parametrize('rows', [(), ROWS], ids=['heatmap', 'positives named'])
def test_logits_give_the_loss_of_their_probabilities(rows):
    pred, target = heatmap(12, 3)
    x, p = pred.clone().requires_grad_(), pred.clone().requires_grad_()
    ours = FusedGaussianFocalLoss(from_logits=True)(x, target, *rows)
    theirs = GaussianFocalLoss()(p.sigmoid(), target, *rows)
    ours.backward(), theirs.backward()
    torch.testing.assert_close((ours, x.grad), (theirs, p.grad), rtol=2e-5, atol=1e-7)


def test_finite_in_float16_where_mmdet_is_not():
    """1e-12 is 0 in float16: the logarithm of a probability of 0 or 1 is infinite there."""
    p, target = torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float16), torch.tensor([[1.0, 0.0, 1.0]])
    assert GaussianFocalLoss()(p, target.half()).isinf()
    loss = FusedGaussianFocalLoss(reduction='sum')(p.requires_grad_(), target)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(2 * 27.6310 + 0.25 * 0.693147), rtol=1e-5, atol=0)
    assert p.grad.isfinite().all()


def test_no_positives_named():
    """mmdet's mean of none is NaN."""
    pred, target = heatmap(12, 3)
    none = torch.zeros(0, dtype=torch.long)
    loss = FusedGaussianFocalLoss()(pred.sigmoid(), target, none, none)
    torch.testing.assert_close(loss, FusedGaussianFocalLoss(pos_weight=0.0)(pred.sigmoid(), target))


def test_signatures_are_mmdets():
    """mmdet's arguments first and in its order."""
    ours, theirs = (
        list(inspect.signature(kind).parameters.values()) for kind in (FusedGaussianFocalLoss, GaussianFocalLoss)
    )
    assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]
    assert [p.name for p in ours[len(theirs) :]] == ['use_sigmoid', 'from_logits']
    ours, theirs = (inspect.signature(kind.forward).parameters for kind in (FusedGaussianFocalLoss, GaussianFocalLoss))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


@pytest.mark.parametrize(
    'rest, changes, message',
    [
        (ROWS[:1], {}, 'pos_labels'),
        (ROWS, {'reduction_override': 'none'}, "reduction='none'"),
        (ROWS, {'reduction_override': 'avg'}, 'avg'),
    ],
    ids=['rows without classes', 'none', 'another reduction'],
)
def test_bad_arguments(rest, changes, message):
    pred, target = heatmap(12, 3)
    with pytest.raises(ValueError, match=message):
        FusedGaussianFocalLoss()(pred.sigmoid(), target, *rest, **changes)
