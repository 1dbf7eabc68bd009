"""What ties the losses to each other, to cross-entropy, and to the statements of their papers."""

import math

import pytest
import torch
import torch.nn.functional as F

from focal_plugin import functional
from focal_plugin.math import SPECS
from tests.oracle.check_variants import ELEMENTWISE
from tests.oracle.inputs import N, labels, logits, predictions
from tests.variants import VARIANTS

C = 7


def one_hot(label):
    return F.one_hot(label, C + 1)[:, :C].float()


def cross_entropy(pred, label):
    """In float64: torch's own loses digits of large logits."""
    target = one_hot(label.cpu()).double().to(pred.device)
    return F.binary_cross_entropy_with_logits(pred.double(), target, reduction='none').float()


def focal(pred, label, gamma=2.0, alpha=None):
    return functional.sigmoid_focal_loss(pred, label, gamma=gamma, alpha=alpha, reduction='none')


def row(loss):
    return loss.sum(-1)


def ones(label):
    return torch.ones(label.shape, device=label.device)


GAMMAS = (0, 0.5, 1, 1.5, 2, 5)
# name: (ours(pred, label, gamma), what it equals, the gammas)
IDENTITIES = {
    'focal with gamma 0 is cross-entropy': (
        lambda x, t, g: focal(x, t, g), lambda x, t, g: cross_entropy(x, t), (0,)),
    'poly with epsilon 0 is focal': (
        lambda x, t, g: functional.poly_focal_loss(x, t, epsilon=0, gamma=g, alpha=0.4, reduction='none'),
        lambda x, t, g: focal(x, t, g, 0.4), GAMMAS),
    'reduced with threshold 1 is cross-entropy': (
        lambda x, t, g: functional.reduced_focal_loss(x, t, threshold=1.0, gamma=g, reduction='none'),
        lambda x, t, g: cross_entropy(x, t), GAMMAS),
    'asymmetric without a shift and with equal gammas is focal': (
        lambda x, t, g: functional.asymmetric_loss(x, t, gamma_pos=g, gamma_neg=g, clip=0.0, reduction='none'),
        lambda x, t, g: focal(x, t, g), GAMMAS),
    'quality of labels is focal, summed over the classes': (
        lambda x, t, g: functional.quality_focal_loss(x, t, beta=g, reduction='none'),
        lambda x, t, g: row(focal(x, t, g)), GAMMAS),
    'quality of a one-hot is focal, summed over the classes': (
        lambda x, t, g: functional.quality_focal_loss(x, one_hot(t.cpu()).to(x.device), beta=g, reduction='none'),
        lambda x, t, g: row(focal(x, t, g)), GAMMAS),
    'quality of labels with the score 1': (
        lambda x, t, g: functional.quality_focal_loss(x, (t, ones(t)), beta=g, reduction='none'),
        lambda x, t, g: row(focal(x, t, g)), GAMMAS),
    'equalized with ratio 1 is focal': (
        lambda x, t, g: functional.equalized_focal_loss(x, t, gamma=g, alpha=0.4, ratio=1.0, reduction='none'),
        lambda x, t, g: focal(x, t, g, 0.4), GAMMAS[1:]),
    'equalized with scale 0 is focal': (
        lambda x, t, g: functional.equalized_focal_loss(x, t, gamma=g, scale=0, ratio=[0.5] * C, reduction='none'),
        lambda x, t, g: focal(x, t, g, 0.25), GAMMAS[1:]),
    'star with gamma 1 and beta 0 is cross-entropy': (
        lambda x, t, g: functional.sigmoid_focal_star_loss(x, t, gamma=1.0, beta=0.0, reduction='none'),
        lambda x, t, g: cross_entropy(x, t), (1,)),
    'varifocal of labels is cross-entropy for positives': (
        lambda x, t, g: functional.varifocal_loss(x, t, gamma=g, alpha=0.0, reduction='none'),
        lambda x, t, g: cross_entropy(x, t) * one_hot(t.cpu()).to(x.device), GAMMAS),
    'varifocal of labels is alpha focal for negatives': (
        lambda x, t, g: functional.varifocal_loss(x, torch.full_like(t, C), gamma=g, alpha=0.4, reduction='none'),
        lambda x, t, g: 0.4 * focal(x, torch.full_like(t, C), g), GAMMAS),
    'class-balanced with equal counts is focal': (
        lambda x, t, g: functional.class_balanced_focal_loss(
            x, t, samples_per_class=[30] * C, class_beta=0.99, gamma=g, reduction='none'),
        lambda x, t, g: focal(x, t, g), GAMMAS),
    'class-balanced with beta 0 is focal': (
        lambda x, t, g: functional.class_balanced_focal_loss(
            x, t, samples_per_class=list(range(1, C + 1)), class_beta=0.0, gamma=g, reduction='none'),
        lambda x, t, g: focal(x, t, g), (2,)),
    'Gaussian of a one-hot is focal': (
        lambda x, t, g: functional.gaussian_focal_loss(
            x, one_hot(t.cpu()).to(x.device), alpha=g, from_logits=True, reduction='none'),
        lambda x, t, g: focal(x, t, g), GAMMAS),
    'position-supervised of labels is focal, summed over the classes': (
        lambda x, t, g: functional.position_supervised_loss(x, t, gamma=g, alpha=0.4, reduction='none'),
        lambda x, t, g: row(focal(x, t, g, 0.4)), GAMMAS),
    'matchability-aware of labels is varifocal with a detached weight': (
        lambda x, t, g: functional.matchability_aware_loss(x, t, gamma=g, mal_alpha=0.4, reduction='none'),
        lambda x, t, g: row(functional.varifocal_loss(
            x, t, gamma=g, alpha=0.4, detach_weight=True, reduction='none')), GAMMAS),
    'IoU-aware with k 0 of labels is varifocal with alpha 1': (
        lambda x, t, g: functional.iou_aware_bce_loss(x, t, k=0.0, gamma=g, reduction='none'),
        lambda x, t, g: row(functional.varifocal_loss(x, t, gamma=g, alpha=1.0, reduction='none')), GAMMAS),
}  # fmt: skip


def same(ours, theirs, pred, *arguments):
    """Values and gradients under a random upstream one, in twice the promised relative error."""
    results = []
    for function in (ours, theirs):
        leaf = pred.clone().requires_grad_()
        loss = function(leaf, *arguments)
        upstream = torch.rand(loss.shape, generator=torch.Generator().manual_seed(1)).to(loss.device) + 0.5
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf, upstream)))
    torch.testing.assert_close(*results, rtol=2e-5, atol=1e-30)


@pytest.mark.sampled(interpreted=5)
@pytest.mark.parametrize('ours, theirs, gammas', IDENTITIES.values(), ids=IDENTITIES)
def test_identities(device, ours, theirs, gammas):
    for gamma in gammas:
        same(ours, theirs, predictions(N, C).to(device), labels(N, classes=C).to(device), gamma)


def test_reduced_with_threshold_one_half_is_four_times_focal_where_p_t_is_above(device):
    """gamma 2, no alpha; below it is cross-entropy."""
    pred, label = predictions(N, C).to(device), labels(N, classes=C).to(device)
    right = (pred > 0) == (one_hot(label.cpu()).to(device) > 0)
    same(
        lambda x: functional.reduced_focal_loss(x, label, threshold=0.5, gamma=2.0, reduction='none'),
        lambda x: torch.where(right, 4 * focal(x, label), cross_entropy(x, label)),
        pred,
    )


@pytest.mark.parametrize('p_t, times', ((0.9, 100), (0.968, 1000)))
def test_focal_paper_on_well_classified_examples(device, p_t, times):
    """Section 3.2: with gamma 2, p_t = 0.9 has 100 times less loss than under cross-entropy, p_t ~ 0.968 1000 times."""
    pred = torch.full((1, 1), math.log(p_t / (1 - p_t)), device=device)
    for label, x in ((0, pred), (1, -pred)):
        label = torch.tensor([label], device=device)
        plain, eased = (focal(x, label, gamma).item() for gamma in (0, 2))
        assert plain / eased == pytest.approx(times, rel=1e-4 if p_t == 0.9 else 0.03)


def test_alpha_one_silences_negatives(device):
    pred = predictions(N, C).to(device).requires_grad_()
    background = torch.full((N,), C, device=device)
    for loss in (
        functional.sigmoid_focal_loss(pred, background, alpha=1.0),
        functional.sigmoid_focal_star_loss(pred, background, alpha=1.0),
        functional.position_supervised_loss(pred, background, alpha=1.0),
        functional.reduced_focal_loss(pred, background, alpha=1.0),
    ):
        assert loss == 0
        assert (torch.autograd.grad(loss, pred)[0] == 0).all()


EXPONENTS = [
    (name, p.name)
    for name in ELEMENTWISE
    for p in SPECS[name].parameters
    if p.name in ('gamma', 'beta', 'gamma_pos', 'gamma_neg', 'k') or (name, p.name) == ('gaussian_focal', 'alpha')
]


@pytest.mark.sampled(interpreted=5)
@pytest.mark.parametrize('name, exponent', EXPONENTS)
def test_gradients_are_finite_below_an_exponent_of_one(device, name, exponent):
    """pow(1 - p_t, gamma - 1) is inf in several ports, SAM3's kernel among them: also exactly at p = y."""
    smallest = next(p for p in SPECS[name].parameters if p.name == exponent)
    for value in (0.3,) if smallest.above else (0, 0.3):
        parameters = VARIANTS[name].arguments(1) | {exponent: value} | VARIANTS[name].of_logits
        pred = logits()[:-3].float().unsqueeze(1).to(device).requires_grad_()
        targets = [torch.zeros(len(pred), dtype=torch.long), torch.ones(len(pred), dtype=torch.long)]
        targets += [torch.full((len(pred), 1), 0.5)] if VARIANTS[name].dense else []
        for target in targets:
            loss = functional.FUNCTIONS[name](pred, target.to(device), reduction='none', **parameters)
            (grad,) = torch.autograd.grad(loss.sum(), pred)
            assert loss.isfinite().all() and grad.isfinite().all()
