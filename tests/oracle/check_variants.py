"""Any sigmoid variant, in one call held to the oracle, and what each can be given."""

import math

import numpy as np
import torch

from focal_plugin import functional
from focal_plugin.math import SPECS
from focal_plugin.math.spec import REQUIRED
from tests import oracle
from tests.oracle import assert_accurate
from tests.oracle.inputs import C, N, generator, labels, predictions
from tests.oracle.variants import statistics, variant_loss

ELEMENTWISE = {name: spec for name, spec in SPECS.items() if spec.skeleton == 'elementwise'}


# What is tried besides the defaults, and why. An exponent of 0 and one in (0, 1) give NaN in many ports; 1, 2 and 4 are
# specialised in the kernels, 1.5 and 5 are not.
SETTINGS = {
    'focal': {'no alpha, as fvcore': dict(alpha=-1), 'negatives silent': dict(alpha=1, gamma=0)},
    'focal_star': {
        "the paper's flat one": dict(gamma=4.0, beta=0.0, alpha=0.25),
        "the paper's shifted one": dict(gamma=2.0, beta=1.0),
        'a slope below 1': dict(gamma=0.5, beta=3.0, alpha=1),
    },
    'quality_focal': {
        'cross-entropy': dict(beta=0),
        'a pole at p = y': dict(beta=0.5),
        'a step at p = y': dict(beta=1),
        'any exponent': dict(beta=1.5),
        'a steep one': dict(beta=5),
    },
    'varifocal': {
        'positives all alike': dict(iou_weighted=False),
        'detached, as RT-DETR': dict(detach_weight=True),
        'cross-entropy': dict(gamma=0, alpha=1),
        'below 1, detached': dict(gamma=0.5, detach_weight=True),
        'a steep one, RetinaNet\'s alpha': dict(gamma=5, alpha=0.25),
    },
    'gaussian_focal': {
        'no powers': dict(alpha=0, gamma=0),
        'powers below 1': dict(alpha=0.5, gamma=0.5),
        'odd weights': dict(alpha=1.5, gamma=1, pos_weight=0.5, neg_weight=3.0),
        'steep, negatives silent': dict(alpha=5, gamma=5, neg_weight=0.0),
    },
    'matchability_aware': {
        'every positive 1': dict(gamma=0, mal_alpha=0.5),
        'the IoU itself': dict(gamma=1),
        'below 1': dict(gamma=0.5, mal_alpha=2.0),
        'a steep one, negatives silent': dict(gamma=5, mal_alpha=0.0),
    },
    'iou_aware_bce': {
        'detached, as Relation-DETR': dict(detach_weight=True),
        'the IoU alone': dict(k=0.0, gamma=0),
        'the prediction alone': dict(k=1.0, gamma=1),
        'any exponents': dict(k=0.75, gamma=1.5),
        'a steep one, detached': dict(gamma=5, detach_weight=True),
    },
    'position_supervised': {
        'scaled by the batch': dict(normalize='batch'),
        'cross-entropy': dict(gamma=0, alpha=0.5),
        'a pole at p = t': dict(gamma=0.5),
        'negatives silent': dict(alpha=1.0, gamma=1),
        'a steep one': dict(gamma=5, alpha=0.75),
    },
    'equalized_focal': {
        'the rarest class': dict(ratio=0.0),
        'between': dict(ratio=0.625, gamma=1.5, alpha=None),
        'a small exponent': dict(gamma=0.5, ratio=0.875),
    },
    'class_balanced_focal': {'cross-entropy': dict(gamma=0), 'below 1': dict(gamma=0.5), 'a steep one': dict(gamma=5)},
    'poly_focal': {
        'alpha on both terms': dict(alpha_on_poly=True, epsilon=2.0),
        'the least epsilon, no alpha': dict(epsilon=-1.0, alpha=None),
        'cross-entropy + 1 - p_t': dict(gamma=0, epsilon=0.5),
        'below 1': dict(gamma=0.5),
        'a steep one': dict(gamma=5, alpha_on_poly=True),
    },
    'asymmetric': {
        "their code's default": dict(detach_weight=True),
        "the paper's": dict(gamma_pos=0.0),
        'no shift': dict(clip=0.0, gamma_pos=2.0, gamma_neg=2.0),
        'no shift, detached': dict(clip=0.0, gamma_pos=0.5, gamma_neg=0.5, detach_weight=True),
        'a step at p = clip': dict(gamma_neg=0.0, clip=0.25),
        'steep at p = clip': dict(gamma_pos=5, gamma_neg=0.5),
    },
    'reduced_focal': {
        'cross-entropy': dict(threshold=1.0),
        'another threshold and alpha': dict(threshold=0.3, alpha=0.25, gamma=1.5),
        'gamma 0': dict(gamma=0),
        'below 1': dict(gamma=0.5, threshold=0.9),
        'a steep one': dict(gamma=5),
    },
}  # fmt: skip


POINTS = [(name, reason) for name in ELEMENTWISE for reason in ('the defaults', *SETTINGS[name])]


def parameters_of(name: str, classes: int, reason: str = 'the defaults') -> dict:
    """All public arguments of a variant."""
    spec = ELEMENTWISE[name]
    required = {'samples_per_class': [10.0 ** (c % 4) for c in range(classes)]}
    defaults = {key: required[key] if value is REQUIRED else value for key, value in spec.defaults.items()}
    return defaults | SETTINGS[name].get(reason, {})


def units_of_p(name: str, device) -> int:
    """How many eps p may be off, which shows where p - clip cancels: 2 ** -22 of ex2, 2 ** -23 of rcp, four roundings."""
    return 5 if name == 'asymmetric' and torch.device(device).type == 'cuda' else 1


def random_upstream(shape, dtype) -> torch.Tensor:
    return torch.rand(shape, generator=generator(1)).to(dtype).add_(0.5)


def oracle_of(name, pred, target, weight, upstream, probabilities, arguments, units=1):
    arguments = {key: None if isinstance(value, int) and value == -1 else value for key, value in arguments.items()}
    eps = units * torch.finfo(torch.promote_types(pred.dtype, torch.float32)).eps
    return variant_loss(
        name, pred, target, weight, upstream=upstream, eps=eps, probabilities=bool(probabilities), **arguments
    )


def check(name, device, pred, target, weight=None, probabilities=None, exact=None, **arguments):
    """Value and gradient under a random upstream gradient against the oracle; gives (loss, pred's gradient)."""
    spec = ELEMENTWISE[name]
    to = lambda t: tuple(map(to, t)) if isinstance(t, tuple) else t.to(device) if isinstance(t, torch.Tensor) else t  # noqa: E731
    leaf = pred.detach().to(device).requires_grad_()
    flags = {}
    if spec.probabilities == 'from_logits':
        flags = {'from_logits': not probabilities}
    elif probabilities:
        flags = {spec.probabilities: True}
    loss = functional.FUNCTIONS[name](
        leaf, to(target), to(weight), **{key: to(value) for key, value in arguments.items()}, **flags
    )
    upstream = random_upstream(loss.shape, loss.dtype)
    loss.backward(upstream.to(device))
    units = units_of_p(name, device)
    exact = exact or oracle_of(name, pred, target, weight, upstream, probabilities, arguments, units)
    value, value_terms, value_through_p = (
        each.reshape(loss.shape) for each in (exact.value, exact.value_terms, exact.value_through_p)
    )
    grad_through_p = exact.grad_through_p
    if not probabilities:
        eps = torch.finfo(torch.promote_types(pred.dtype, torch.float32)).eps
        grad_through_p = grad_through_p + vanishing(pred, exact.grad) / eps
        if value.size == pred.numel():
            value_through_p = value_through_p + vanishing(pred, value.reshape(pred.shape)).reshape(value.shape) / eps
    value_through_p, grad_through_p = (units_of_p(name, device) * each for each in (value_through_p, grad_through_p))
    assert_accurate(loss.detach().cpu(), value, value_terms, value_through_p)
    assert_accurate(leaf.grad.cpu(), exact.grad, exact.grad_terms, grad_through_p, bool(probabilities))
    return loss, leaf.grad


def vanishing(pred, exact) -> np.ndarray:
    """Results that may be flushed to 0: p or 1 - p is below the smallest normal number, they are not far above it."""
    smallest = torch.finfo(torch.promote_types(pred.dtype, torch.float32)).smallest_normal
    flushed = oracle.array(pred.double().abs()) > -math.log(smallest)
    return np.where(flushed & (np.abs(exact) < 64 * smallest), np.abs(exact), 0)


def forms_of(name):
    """Class-balanced factors are of labels."""
    yield 'labels'
    yield from ['scored'] * ELEMENTWISE[name].scored
    yield from ['dense'] * (name != 'class_balanced_focal')


def target_of(name: str, shape, form: str | None = None):
    """A target in the form that heads hand this variant most, or in another."""
    form = form or ELEMENTWISE[name].form
    label, score = labels(*shape[:-1], classes=shape[-1]), torch.rand(shape[:-1], generator=generator(4))
    if form == 'labels':
        return label
    if form == 'scored':
        return label, score
    values = torch.rand(shape, generator=generator(5))
    return torch.where(values < 0.3, 0, torch.where(values > 0.9, 1, values))


VECTORS = {
    'gamma': [0.0, 0.5, 1.0, 2.0, 5.0],
    'alpha': [0.0, 0.25, 0.5, 0.75, 1.0],
    'ratio': [0.0, 0.25, 0.5, 0.875, 1.0],
}


STATISTICS = {
    'labels': dict(target=labels(N), reduction='mean'),
    'a one-hot': dict(target=torch.nn.functional.one_hot(labels(N), C + 1)[:, :C].float(), reduction='mean'),
    'weights and avg_factor': dict(target=labels(N), weight=torch.rand(N, generator=generator(3)), avg_factor=7.0,
                                   reduction='mean'),
    'an avg_factor of a tensor': dict(target=labels(N), avg_factor=torch.tensor([7.0]), reduction='mean'),
    'one value an element': dict(target=labels(N), reduction='none'),
    'all background': dict(target=torch.full((N,), C), reduction='sum'),
    'ratios a class': dict(target=labels(N), ratio=torch.tensor(VECTORS['ratio']), reduction='mean'),
}  # fmt: skip


def check_statistics(device, arguments, dtype):
    """Of positives and negatives by class; weight and mean in, the upstream gradient (AMP's scale) out; they add up."""
    arguments = parameters_of('equalized_focal', C) | arguments
    target, weight = arguments.pop('target'), arguments.pop('weight', None)
    pred = predictions(N, C).to(dtype)
    sums = torch.full((2, C), 3.0, dtype=torch.float64, device=device)
    to = lambda t: t.to(device) if isinstance(t, torch.Tensor) else t  # noqa: E731
    leaf = pred.to(device).requires_grad_()
    loss = functional.equalized_focal_loss(
        leaf, to(target), to(weight), statistics=sums, **{key: to(value) for key, value in arguments.items()}
    )
    assert (sums == 3).all()
    loss.backward(torch.full_like(loss, 512.0))
    expected = statistics('equalized_focal', pred, target, weight, **arguments)
    np.testing.assert_allclose(sums.cpu().numpy() - 3, expected, rtol=1e-5, atol=1e-12)
    plain = variant_loss('equalized_focal', pred, target, weight, upstream=512.0, **arguments)
    assert_accurate(leaf.grad.cpu(), plain.grad, plain.grad_terms, plain.grad_through_p)
