"""Every sigmoid variant on every backend against the oracle: the promised numerics, forms, reductions, layouts."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from oracle_variants import statistics, variant_loss
from test_accuracy import DTYPES, HALVES, logits

import focal_plugin
from focal_plugin import backend, functional
from focal_plugin.math import SPECS
from focal_plugin.math.spec import REQUIRED

import oracle
from oracle import assert_accurate

N, C = 37, 5  # odd both: no tile or vector divides them
# Than a tile: 128 in Triton, of which the interpreter takes its time; 8192 logits in the native kernel.
MORE_ROWS = 500 if backend.INTERPRETING else 3000
ELEMENTWISE = {name: spec for name, spec in SPECS.items() if spec.family == 'elementwise'}

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
SCORES = (0.0, 1e-3, 0.3, 0.5, 1.0)
NEAR = (0.3, 0.3**2, 0.3**1.5, 0.05, 0.25)
"""Probabilities that a target or a shift has above: there terms cancel."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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


def skip_where_not_served(any_backend, dtype):
    if dtype == torch.float64 and any_backend != 'torch':
        pytest.skip('float64 is served by the torch backend')


def every_logit(dtype, rows: int, reason: str) -> torch.Tensor:
    """test_accuracy's logits and those next to cancellation, once for each target: (n * rows, 1).

    Without inf where the batch scales a target of 1 to 1 - 1e-8, which is 1 in float32.
    """
    near = [math.log(p / (1 - p)) + d for p in NEAR for d in (0, 1e-3, -1e-3, 1e-6, -1e-6)]
    values = torch.cat([torch.tensor(near, dtype=torch.float64), logits()])
    values = values[~values.isinf()] if 'batch' in reason else values
    return values.repeat(rows).to(dtype).unsqueeze(1)


def test_every_variant_is_tried():
    assert set(SETTINGS) == set(ELEMENTWISE)


@functools.cache
def case_of(form, name, reason, dtype):
    """(pred, target, oracle's result): every logit with every target; a score of 0 is still a positive's."""
    count = {'labels': 2, 'scored': len(SCORES) + 1, 'dense': len(SCORES)}[form]
    pred = every_logit(dtype, count, reason)
    which = torch.arange(len(pred)) // (len(pred) // count)
    if form == 'labels':
        target = which
    elif form == 'scored':  # the last is the background's, which has no effect, but on the batch's largest
        target = (which == len(SCORES)).long(), torch.tensor([*SCORES, 0.0 if 'batch' in reason else 0.7])[which]
    else:
        target = torch.tensor(SCORES, dtype=dtype)[which].unsqueeze(1)
    upstream = random_upstream(pred.shape[: 1 if ELEMENTWISE[name].per_row else 2], dtype)
    arguments = dict(reduction='none') | parameters_of(name, 1, reason)
    return pred, target, oracle_of(name, pred, target, None, upstream, None, arguments)


def forms_of(name):
    """Class-balanced factors are of labels."""
    yield 'labels'
    yield from ['scored'] * ELEMENTWISE[name].scored
    yield from ['dense'] * (name != 'class_balanced_focal')


@pytest.mark.parametrize(
    'form, name, reason, dtype',
    [
        pytest.param(form, name, reason, dtype, marks=pytest.mark.compiled if dtype in HALVES else ())
        for name, reason in POINTS
        for form in forms_of(name)
        for dtype in DTYPES
        # Halves are converted and computed in float32: the defaults show what conversion does.
        if dtype in (torch.float32, torch.float64) or reason == 'the defaults'
    ],
    ids=str,
)
def test_every_logit(any_backend, device, form, name, reason, dtype):
    """Hard labels have no margin but where a shift or a target is computed."""
    skip_where_not_served(any_backend, dtype)
    pred, target, exact = case_of(form, name, reason, dtype)
    check(name, device, pred, target, exact=exact, reduction='none', **parameters_of(name, 1, reason))


@pytest.mark.parametrize('dtype', DTYPES[:3], ids=str)
@pytest.mark.parametrize(
    'name, reason', [each for each in POINTS if each[0] != 'focal' and ELEMENTWISE[each[0]].probabilities]
)
def test_probabilities(any_backend, device, dtype, name, reason):
    """The ends 0 and 1 included; the gradient is finite in every dtype."""
    p = np.concatenate([np.linspace(0, 1, 257), np.geomspace(1e-6, 0.1, 60), 1 - np.geomspace(1e-3, 0.1, 20)])
    pred = torch.from_numpy(p).to(dtype).repeat(len(SCORES)).unsqueeze(1)
    target = torch.tensor(SCORES, dtype=dtype)[torch.arange(len(pred)) // len(p)].unsqueeze(1)
    _, grad = check(name, device, pred, target, reduction='none', probabilities=True, **parameters_of(name, 1, reason))
    assert grad.isfinite().all()


def labels(*shape, classes=C, seed=1):
    return torch.randint(0, classes + 1, shape, generator=generator(seed))


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


def predictions(*shape):
    return torch.randn(shape, generator=generator()) * 3


SHAPES = {
    'one class, as MaskFormer': (N, 1),
    'odd classes': (N, C),
    'classes that tiles divide': (N, 16),
    'more classes than a tile': (3, 4100),
    'more rows than a tile, few classes': (MORE_ROWS, 3),
    'three dimensions, as YOLO': (2, N, C),
    'as many rows as classes': (C, C),
    'no rows': (0, C),
}


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_shapes_and_reductions(device, name, shape):
    spec, weight = ELEMENTWISE[name], torch.rand(shape[:-1], generator=generator(3))
    parameters = parameters_of(name, shape[-1])
    for reduction in ('none', 'mean') if shape[-1] == 4100 else ('none', 'mean', 'sum'):
        loss, _ = check(
            name, device, predictions(*shape), target_of(name, shape), weight, reduction=reduction, **parameters
        )
        assert loss.shape == ((shape[:-1] if spec.per_row else shape) if reduction == 'none' else ())


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('form', ('labels', 'scored', 'dense'))
def test_target_forms(device, name, form):
    if (form == 'scored' and not ELEMENTWISE[name].scored) or (form == 'dense' and name == 'class_balanced_focal'):
        pytest.skip('not a target of this loss')
    target = target_of(name, (N, C), form)
    for reduction in ('none', 'mean'):
        check(name, device, predictions(N, C), target, reduction=reduction, **parameters_of(name, C))
        check(name, device, predictions(N, C).half(), target, reduction=reduction, **parameters_of(name, C))


LAYOUTS = {
    'an NCHW map as (N, H, W, C)': lambda: predictions(2, C, 6, 9).permute(0, 2, 3, 1),
    'transposed': lambda: predictions(C, 70).t(),
    'a slice of rows and classes': lambda: predictions(N + 3, C + 3)[1:-2, 1:-2],
    'six dimensions that do not join': lambda: predictions(4, 4, 4, 4, 4, C)[::2, ::2, ::2, ::2, ::2],
}


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('make', LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(device, name, make):
    pred = make()
    weight = torch.rand(pred.shape[:-1], generator=generator(3))
    target = target_of(name, pred.shape)
    for reduction in ('none', 'mean'):
        loss, _ = check(name, device, pred, target, weight, reduction=reduction, **parameters_of(name, C))
    leaf = pred.to(device).requires_grad_()
    (grad,) = torch.autograd.grad(functional.FUNCTIONS[name](leaf, *(_to(device, t) for t in (target, weight)),
                                                             **parameters_of(name, C), **_logits(name)), leaf)  # fmt: skip
    assert grad.stride() == torch.empty_like(leaf).stride()
    assert loss.dim() == 0


def _to(device, value):
    return tuple(each.to(device) for each in value) if isinstance(value, tuple) else value.to(device)


def _logits(name):
    return {'from_logits': True} if ELEMENTWISE[name].probabilities == 'from_logits' else {}


CALLS = {
    'avg_factor': dict(avg_factor=13.5),
    'avg_factor 0, where an image has no box': dict(avg_factor=0),
    '0-d int64, as SOLO': dict(avg_factor=torch.tensor(13)),
    '(1,), as DETR': dict(avg_factor=torch.tensor([13.5])),
    'none ignores avg_factor': dict(reduction='none', avg_factor=3.0),
}


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS)
def test_avg_factor(device, name, call):
    arguments = {'reduction': 'mean'} | call | parameters_of(name, C)
    loss, _ = check(name, device, predictions(N, C), target_of(name, (N, C)), **arguments)
    if isinstance(call['avg_factor'], torch.Tensor):
        assert loss.shape == call['avg_factor'].shape


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
def test_weights(device, name):
    """One a row, also where rows and classes are as many; one an element; zeros."""
    parameters = parameters_of(name, C)
    for shape in ((C,), (C, 1), (C, C), (C * C,), (1, C)):
        weight = torch.rand(shape, generator=generator(3))
        check(name, device, predictions(C, C), target_of(name, (C, C)), weight, reduction='none', **parameters)
    zeros = torch.zeros(N)
    _, grad = check(name, device, predictions(N, C), target_of(name, (N, C)), zeros, reduction='mean', **parameters)
    assert (grad == 0).all()


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
def test_ignore_index_silences_rows_even_of_nan(device, name):
    pred, label = predictions(N, C), labels(N)
    label[::4] = 255
    pred[::8] = float('nan')
    target = (label, torch.rand(N, generator=generator(4))) if ELEMENTWISE[name].scored else label
    weight = torch.rand(N, generator=generator(3))
    for reduction in ('none', 'mean'):
        _, grad = check(
            name, device, pred, target, weight, reduction=reduction, ignore_index=255, **parameters_of(name, C)
        )
        assert (grad[::4] == 0).all()


@pytest.mark.parametrize('name', ELEMENTWISE)
def test_nothing_gives_zero_with_a_gradient(device, name):
    leaf = torch.empty(0, C, device=device, requires_grad=True)
    for avg_factor in (None, 2.0, torch.tensor([0.0], device=device)):
        loss = functional.FUNCTIONS[name](
            leaf, _to(device, target_of(name, (0, C))), avg_factor=avg_factor, **parameters_of(name, C), **_logits(name)
        )
        assert (loss == 0).all()
        loss.sum().backward()
    assert leaf.grad.shape == (0, C)


VECTORS = {
    'gamma': [0.0, 0.5, 1.0, 2.0, 5.0],
    'alpha': [0.0, 0.25, 0.5, 0.75, 1.0],
    'ratio': [0.0, 0.25, 0.5, 0.875, 1.0],
}


@pytest.mark.compiled
@pytest.mark.parametrize(
    'name, vectors',
    [
        (name, vectors)
        for name, spec in ELEMENTWISE.items()
        for own in [[p.name for p in spec.parameters if p.vector and p.default is not REQUIRED]]
        for vectors in [*([each] for each in own), *([own] if len(own) > 1 else [])]
    ],
)
def test_parameters_a_class(device, name, vectors):
    """Alone and together, as lists and as tensors."""
    above = {p.name for p in ELEMENTWISE[name].parameters if p.above}  # 0 is not allowed
    given = {key: [value + 0.5 * (key in above) for value in VECTORS[key]] for key in vectors}
    for form, convert in itertools.product(('labels', 'dense'), (list, torch.tensor)):
        if form == 'dense' and name == 'class_balanced_focal':
            continue
        parameters = parameters_of(name, C) | {key: convert(value) for key, value in given.items()}
        check(name, device, predictions(N, C), target_of(name, (N, C), form), reduction='none', **parameters)
    check(name, device, predictions(C, N).t(), target_of(name, (N, C), 'labels'), reduction='mean', **parameters)


def test_focal_losses_take_vectors():
    for name in ('focal', 'equalized_focal'):
        assert any(p.vector for p in ELEMENTWISE[name].parameters)


DIFFERENTIABLE = [name for name in ELEMENTWISE if name not in ('matchability_aware', 'iou_aware_bce')]  # no constants


@pytest.mark.parametrize('name', DIFFERENTIABLE)
def test_gradcheck_in_float64(name):
    """Once and twice; by the weights too, which the torch backend serves."""
    parameters = parameters_of(name, C)
    pred = predictions(6, C).double().requires_grad_()
    weight = torch.rand(6, 1, generator=generator(3)).double().requires_grad_()

    def loss(pred, weight=None):
        return functional.FUNCTIONS[name](pred, labels(6), weight, **parameters, **_logits(name))

    assert torch.autograd.gradcheck(loss, (pred, weight))
    assert torch.autograd.gradgradcheck(loss, pred)


@pytest.mark.parametrize('name', ('quality_focal', 'matchability_aware', 'position_supervised'))
def test_gradient_of_the_scores(name):
    score = (torch.rand(6, generator=generator()) * 0.8 + 0.1).double().requires_grad_()
    pred, parameters = predictions(6, C).double(), parameters_of(name, C)
    assert torch.autograd.gradcheck(lambda s: functional.FUNCTIONS[name](pred, (labels(6), s), **parameters), score)


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
def test_the_same_input_gives_the_same_bits(device, name):
    pred, target = predictions(MORE_ROWS, 7).to(device).requires_grad_(), _to(device, target_of(name, (MORE_ROWS, 7)))
    results = []
    for _ in range(2):
        loss = functional.FUNCTIONS[name](pred, target, **parameters_of(name, 7), **_logits(name))
        results.append((loss.detach(), *torch.autograd.grad(loss, pred)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.compiled
@pytest.mark.parametrize('name', [name for name, spec in ELEMENTWISE.items() if spec.per_row])
@pytest.mark.parametrize('dtype', DTYPES[1:3], ids=str)
def test_rows_of_halves(device, name, dtype):
    """One value a row in pred's dtype, summed in float32; reduced losses are float32."""
    pred, parameters = predictions(N, 70).to(dtype), parameters_of(name, 70)
    loss, grad = check(name, device, pred, target_of(name, (N, 70)), reduction='none', **parameters)
    assert loss.dtype == grad.dtype == dtype
    loss, grad = check(name, device, pred, target_of(name, (N, 70)), reduction='mean', **parameters)
    assert loss.dtype == torch.float32 and grad.dtype == dtype


# ---- statistics of the equalized focal loss ----

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


@pytest.mark.compiled
@pytest.mark.parametrize('dtype', DTYPES[:3], ids=str)
@pytest.mark.parametrize('arguments', STATISTICS.values(), ids=STATISTICS)
def test_statistics_are_sums_of_absolute_gradients(device, arguments, dtype):
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


def test_statistics_of_maps_and_of_more_rows_than_a_tile(device):
    parameters = parameters_of('equalized_focal', C)
    for pred in (predictions(2, C, 6, 9).permute(0, 2, 3, 1), predictions(3000, C)):
        target = labels(*pred.shape[:-1])
        sums = torch.zeros(2, C, dtype=torch.float64, device=device)
        leaf = pred.to(device).requires_grad_()
        functional.equalized_focal_loss(leaf, target.to(device), statistics=sums, **parameters).backward()
        expected = statistics('equalized_focal', pred, target, **parameters)
        np.testing.assert_allclose(sums.cpu(), expected, rtol=1e-5)


# ---- errors: the value and the remedy ----

PAIR = (torch.zeros(2, dtype=torch.long), torch.ones(2))
BAD = {
    'scores of another shape': ((PAIR[0], torch.ones(2, C)), ValueError, r'scores must have the shape \(2,\).*\(2, 5\)'),
    'too few scores': ((PAIR[0], torch.ones(1)), ValueError, r'scores must have the shape \(2,\).*got \(1,\)'),
    'scores first': (PAIR[::-1], TypeError, r'integer.*got torch\.float32.*'),
    'complex scores': ((PAIR[0], torch.ones(2, dtype=torch.complex64)), TypeError, r'scores must be real.*complex64'),
    'scores as a list': ((PAIR[0], [1.0, 1.0]), TypeError, r'scores must be a tensor, got list'),
    'three of them': ((*PAIR, PAIR[1]), (TypeError, ValueError), r'\(labels, scores\)'),
    'scores elsewhere': ((PAIR[0], PAIR[1].to('meta')), ValueError, r'scores.*to\(pred\.device\)'),
    'a label above C': ((PAIR[0] + C + 1, PAIR[1]), ValueError, r'label 6 is outside \[0, 5\].*num_classes'),
}  # fmt: skip


@pytest.mark.parametrize('name', [name for name, spec in ELEMENTWISE.items() if spec.scored])
@pytest.mark.parametrize('target, error, message', BAD.values(), ids=BAD)
def test_bad_scores(name, target, error, message):
    with pytest.raises(error, match=message):
        functional.FUNCTIONS[name](torch.zeros(2, C), target)


@pytest.mark.parametrize('name', [name for name, spec in ELEMENTWISE.items() if not spec.scored])
def test_scores_where_they_mean_nothing(name):
    with pytest.raises((TypeError, ValueError), match=r'scores|tuple'):
        functional.FUNCTIONS[name](torch.zeros(2, C), PAIR, **parameters_of(name, C))


@pytest.mark.parametrize(
    'name, value, message',
    [
        (name, (key := p.name, value), message)
        for name, spec in ELEMENTWISE.items()
        for p in spec.parameters
        if not p.choices and not isinstance(p.default, bool) and p.default is not REQUIRED
        for value, message in (
            *(() if p.optional else [(p.low - 0.5, 'must be (at least|above|in)')]),
            (p.high + 1, 'must be (at least|above|in)'),
            (float('nan'), 'must be'),
        )
    ],
)
def test_parameters_outside_their_range(name, value, message):
    key, bad = value
    with pytest.raises(ValueError, match=f'{key} {message}.*got'):
        functional.FUNCTIONS[name](torch.zeros(2, C), target_of(name, (2, C)), **(parameters_of(name, C) | {key: bad}))


def test_choices_flags_and_required_arguments():
    pred, target = torch.zeros(2, C), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"normalize must be 'none' or 'batch', got 'image'"):
        functional.position_supervised_loss(pred, target, normalize='image')
    with pytest.raises((TypeError, ValueError), match=r'detach_weight must be True or False, got'):
        functional.varifocal_loss(pred, target, detach_weight='no')
    with pytest.raises(TypeError, match=r'samples_per_class must be given'):
        functional.class_balanced_focal_loss(pred, target)
    with pytest.raises(ValueError, match=r'samples_per_class holds 3 numbers for logits of 5 classes'):
        functional.class_balanced_focal_loss(pred, target, samples_per_class=[1, 2, 3])
    with pytest.raises(TypeError, match=r"no argument 'gama': did you mean 'gamma'"):
        functional.poly_focal_loss(pred, target, gama=2)


def test_a_forced_backend_gives_no_gradient_of_scores():
    score = torch.rand(2, requires_grad=True)
    with focal_plugin.use_backend('native'), pytest.raises(ValueError, match='gives no gradient of'):
        functional.quality_focal_loss(torch.zeros(2, C), (torch.zeros(2, dtype=torch.long), score))
