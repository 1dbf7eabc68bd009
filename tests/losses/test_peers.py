"""The registry classes beside mmdet's, both built through the registry, in the calls of mmdet's heads; fvcore's formula."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from mmdet.models import losses as mmdet_losses
from mmdet.registry import MODELS

import focal_plugin
from focal_plugin import functional

N, C = 33, 7
PAIRS = {
    'FocalLoss': 'FusedFocalLoss',
    'QualityFocalLoss': 'FusedQualityFocalLoss',
    'VarifocalLoss': 'FusedVarifocalLoss',
    'GaussianFocalLoss': 'FusedGaussianFocalLoss',
}


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3


def labels(classes=C):
    return torch.randint(0, classes + 1, (N,), generator=torch.Generator().manual_seed(2))


def qualities():
    """IoUs of the positives, 0 for the background, one positive with an IoU of 0 and one with 1."""
    label, score = labels(), random(N, seed=3)
    positives = (label < C).nonzero()[:, 0]
    score[label == C] = 0
    score[positives[0]], score[positives[1]] = 0, 1
    return label, score


def dense():
    label, score = qualities()
    target = torch.zeros(N, C + 1)
    target[torch.arange(N), label] = score
    return target[:, :C]


def heatmap():
    """A heatmap with peaks of exactly 1 and tails that reach 0."""
    target = random(2, C, 6, 9, seed=4) ** 3
    target[target < 0.05] = 0
    target.view(-1)[::61] = 1
    return target


def both(name, config, pred, *arguments, **kwargs):
    """(loss, gradient) of mmdet's class and of ours under a random upstream gradient."""
    results = []
    for kind in (name, PAIRS[name]):
        leaf = pred.clone().requires_grad_()
        loss = MODELS.build(dict(type=kind, **config))(leaf, *arguments, **kwargs)
        upstream = random(*loss.shape, seed=5) + 0.5
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf, upstream)))
    return results


def same(name, config, pred, *arguments, **kwargs):
    theirs, ours = both(name, config, pred, *arguments, **kwargs)
    assert ours[0].shape == theirs[0].shape
    scale = float(theirs[1].abs().max().clamp(min=1))
    torch.testing.assert_close(ours[0], theirs[0], rtol=2e-5, atol=1e-7)
    torch.testing.assert_close(ours[1], theirs[1], rtol=2e-5, atol=2e-7 * scale)


WEIGHT = random(N, seed=6)
COMMON = {
    'weights and avg_factor': ((WEIGHT,), dict(avg_factor=9.0)),
    'no weight': ((), dict(avg_factor=9.0)),
    'DETR: avg_factor of shape (1,)': ((WEIGHT,), dict(avg_factor=torch.tensor([9.0]))),
    'a 0-d int64 avg_factor': ((), dict(avg_factor=torch.tensor(9))),
    'avg_factor 0': ((WEIGHT,), dict(avg_factor=0)),
    'mean without avg_factor': ((WEIGHT,), {}),
    'sum': ((WEIGHT,), dict(reduction_override='sum')),
    'none': ((WEIGHT,), dict(reduction_override='none')),
    'none with avg_factor': ((WEIGHT,), dict(reduction_override='none', avg_factor=9.0)),
}
QUALITY = (dict(use_sigmoid=True), dict(beta=0.0), dict(beta=1.0), dict(beta=1.5, loss_weight=2.5))


@pytest.mark.parametrize('rest, kwargs', COMMON.values(), ids=COMMON)
@pytest.mark.parametrize('target', (qualities, dense), ids=('labels and scores', 'dense'))
@pytest.mark.parametrize('activated', (False, True), ids=('logits', 'probabilities'))
def test_quality_focal(target, activated, rest, kwargs):
    """GFL, LD, TOOD, RTMDet, DETR with pairs; DDQ's auxiliary loss with dense targets; TOOD with probabilities."""
    pred = normal(N, C).sigmoid() if activated else normal(N, C)
    for config in QUALITY:
        same('QualityFocalLoss', config | dict(activated=activated), pred, target(), *rest, **kwargs)


def test_quality_focal_sums_by_default_where_the_config_says_so():
    same('QualityFocalLoss', dict(reduction='sum'), normal(N, C), qualities(), WEIGHT)


def test_quality_focal_of_probabilities_at_their_ends():
    """torch's binary_cross_entropy: logarithms stop at -100, p (1 - p) at 1e-12."""
    pred = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5]).repeat(3, 1)
    target = torch.tensor([[0.0] * 5, [1.0] * 5, [0.25] * 5])
    for beta in (1.0, 2.0):
        same('QualityFocalLoss', dict(activated=True, beta=beta), pred, target, reduction_override='none')


@pytest.mark.parametrize('rest, kwargs', COMMON.values(), ids=COMMON)
def test_varifocal(rest, kwargs):
    """VFNet and TOOD; mmdet's takes a weight per row only as a column."""
    if rest:
        rest = (WEIGHT[:, None].expand(N, C),)
    for config in (dict(use_sigmoid=True), dict(alpha=0.4, gamma=1.5, loss_weight=2.5), dict(iou_weighted=False)):
        same('VarifocalLoss', config, normal(N, C), dense(), *rest, **kwargs)


@pytest.mark.parametrize(
    'config', (dict(), dict(alpha=1.5, gamma=2.0, pos_weight=0.5, neg_weight=3.0, loss_weight=2.0))
)
def test_gaussian_focal(config):
    """CenterNet and CornerNet: heatmaps of probabilities (B, C, H, W), avg_factor an integer or a 0-d tensor."""
    pred, target = normal(2, C, 6, 9).sigmoid(), heatmap()
    for kwargs in (
        dict(avg_factor=13),
        dict(avg_factor=max(1, target.eq(1).sum())),
        dict(),
        dict(reduction_override='sum'),
        dict(reduction_override='none'),
        dict(weight=random(2, C, 6, 9, seed=7), avg_factor=13.0),
    ):
        same('GaussianFocalLoss', config, pred, target, **kwargs)


def test_gaussian_focal_at_the_ends_of_the_probabilities():
    """1e-12 inside the logarithms: in float32 a loss of 27.6 and a gradient of 1e12."""
    pred = torch.tensor([0.0, 1.0]).repeat(3, 1)
    target = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.25, 0.25]])
    same('GaussianFocalLoss', {}, pred, target, reduction_override='none')
    (_, their_grad), _ = both('GaussianFocalLoss', {}, pred, target, reduction_override='sum')
    assert their_grad.abs().max() > 1e11


def test_gaussian_focal_stays_finite_in_halves():
    """mmdet's 1e-12 is 0 in float16: inf and NaN there."""
    pred, target = torch.tensor([0.0, 1.0, 0.5, 2e-5]).repeat(3, 1), torch.tensor([[0.0], [1.0], [0.25]]).expand(3, 4)
    for dtype in (torch.float16, torch.bfloat16):
        (theirs, _), (ours, our_grad) = both(
            'GaussianFocalLoss', {}, pred.to(dtype), target.to(dtype).contiguous(), reduction_override='none'
        )
        exact, _ = both('GaussianFocalLoss', {}, pred.to(dtype).float(), target, reduction_override='none')
        assert theirs.isfinite().all() == (dtype == torch.bfloat16)
        assert our_grad.isfinite().all()
        torch.testing.assert_close(ours.float(), exact[0], rtol=float(torch.finfo(dtype).eps), atol=1e-7)


@pytest.mark.parametrize(
    'kwargs', (dict(avg_factor=5), dict(avg_factor=torch.tensor(5.0)), {}, dict(reduction_override='sum'))
)
def test_gaussian_focal_with_positions(kwargs):
    """CenterNetUpdate: rows and classes of the positives by themselves, some of them twice."""
    pred = normal(N, C).sigmoid()
    rows, classes = torch.tensor([3, 3, 17, 30, 9, 9]), torch.tensor([0, 2, 6, 1, 4, 4])
    target = random(N, C, seed=8) ** 2
    target[rows, classes] = 1
    for config in ({}, dict(alpha=1.5, gamma=3.0, pos_weight=0.25, neg_weight=0.75, loss_weight=2.0)):
        same('GaussianFocalLoss', config, pred, target, rows, classes, **kwargs)
        same('GaussianFocalLoss', config, pred, target, pos_inds=rows, pos_labels=classes, **kwargs)


def test_gaussian_focal_with_no_position():
    """A batch without objects: negatives alone."""
    nothing = torch.zeros(0, dtype=torch.long)
    same('GaussianFocalLoss', {}, normal(N, C).sigmoid(), random(N, C) ** 2, nothing, nothing, avg_factor=1)


@pytest.mark.parametrize('rest, kwargs', COMMON.values(), ids=COMMON)
def test_focal_of_probabilities(rest, kwargs):
    """TOOD and DDQ hand over probabilities; labels and one-hots."""
    one_hot = F.one_hot(labels(), C + 1)[:, :C]
    for target in (labels(), one_hot):
        same('FocalLoss', dict(activated=True, gamma=1.5, alpha=0.4), normal(N, C).sigmoid(), target, *rest, **kwargs)


@pytest.mark.parametrize('theirs, ours', PAIRS.items())
def test_constructors_and_calls_are_those_of_mmdet(theirs, ours):
    """By position as well: our own arguments come after mmdet's."""
    theirs, ours = getattr(mmdet_losses, theirs), MODELS.get(ours)
    for method in (lambda kind: kind, lambda kind: kind.forward):
        mine, peers = (list(inspect.signature(method(kind)).parameters.values()) for kind in (ours, theirs))
        assert [(p.name, p.default) for p in mine[: len(peers)]] == [(p.name, p.default) for p in peers]
    assert issubclass(ours, theirs)


def test_quality_losses_are_taken_for_mmdets():
    """DETR and DINO heads hand (labels, IoU) to subclasses of QualityFocalLoss."""
    for name in ('QualityFocal', 'Varifocal', 'MatchabilityAware', 'IoUAwareBCE', 'PositionSupervised'):
        loss = MODELS.build(dict(type=f'Fused{name}Loss', use_sigmoid=True))
        assert isinstance(loss, mmdet_losses.QualityFocalLoss)
        assert loss.use_sigmoid is True
        assert loss(normal(N, C), qualities(), WEIGHT, avg_factor=torch.tensor([9.0])).shape == (1,)
    assert issubclass(MODELS.get('FusedVarifocalLoss'), mmdet_losses.VarifocalLoss)


def fvcore_star(inputs, targets, alpha=-1.0, gamma=1.0):
    """sigmoid_focal_loss_star of fvcore, written out."""
    targets = targets.to(inputs.dtype)
    loss = -F.logsigmoid(gamma * (inputs * (2 * targets - 1))) / gamma
    return (alpha * targets + (1 - alpha) * (1 - targets)) * loss if alpha >= 0 else loss


@pytest.mark.parametrize(
    'arguments', ({}, dict(gamma=2.0), dict(gamma=4.0, alpha=0.25), dict(gamma=0.5, alpha=1.0)), ids=str
)
def test_star_is_fvcores(arguments):
    for target in (F.one_hot(labels(), C + 1)[:, :C], random(N, C, seed=9).double()):
        pred = normal(N, C).double()
        results = []
        for function in (
            fvcore_star,
            lambda x, t, **a: functional.sigmoid_focal_star_loss(x, t, reduction='none', **a),
        ):
            leaf = pred.clone().requires_grad_()
            loss = function(leaf, target, **arguments)
            results.append((loss.detach(), *torch.autograd.grad(loss, leaf, random(N, C).double())))
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-15)


def test_every_backend_takes_the_calls_of_heads(any_backend, device, mmcv_op):
    """One call of each class as mmdet's heads make it, in float32."""
    for name, target in (
        ('FocalLoss', labels()),
        ('QualityFocalLoss', qualities()),
        ('VarifocalLoss', dense()),
        ('GaussianFocalLoss', heatmap()[0, :, 0, :].t()),
    ):
        pred = normal(N, C) if name != 'GaussianFocalLoss' else normal(9, C).sigmoid()
        results = []
        for kind in (name, PAIRS[name]):
            leaf = pred.to(device).requires_grad_()
            to = (lambda t: tuple(each.to(device) for each in t) if isinstance(t, tuple) else t.to(device))(target)
            with focal_plugin.use_backend(any_backend):
                loss = MODELS.build(dict(type=kind))(leaf, to, avg_factor=torch.tensor([9.0], device=device))
            results.append((loss.detach(), *torch.autograd.grad(loss, leaf, torch.ones_like(loss))))
        torch.testing.assert_close(*results, rtol=2e-5, atol=2e-7)
