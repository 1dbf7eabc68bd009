"""Every sigmoid variant on every backend against the oracle: the promised numerics, forms, reductions, layouts."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from focal_plugin import backend, functional
from focal_plugin.math import SPECS
from focal_plugin.math.spec import REQUIRED
from tests.oracle.check_variants import (
    ELEMENTWISE,
    check,
    forms_of,
    numbers_of_classes,
    oracle_of,
    random_upstream,
    target_of,
)
from tests.oracle.inputs import DTYPES, HALVES, LAYOUTS, C, N, generator, labels, logits, predictions
from tests.variants import POINTS, VARIANTS

# Than a tile: 128 in Triton, of which the interpreter takes its time; 8192 logits in the native kernel.
MORE_ROWS = 500 if backend.INTERPRETING else 3000

SCORES = (0.0, 1e-3, 0.3, 0.5, 1.0)
NEAR = (0.3, 0.3**2, 0.3**1.5, 0.05, 0.25)
"""Probabilities that a target or a shift has above: there terms cancel."""


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
    assert VARIANTS.keys() == SPECS.keys()
    assert {name for name, spec in SPECS.items() if spec.family == 'elementwise'} == set(ELEMENTWISE)


@pytest.mark.parametrize('name', SPECS)
def test_a_variant_is_what_its_paper_says(name):
    """The package's spec beside what the tests know: names, defaults, targets, which arguments may differ by class."""
    spec, variant = SPECS[name], VARIANTS[name]
    assert spec.function == variant.function
    assert dict(spec.defaults) == variant.complete(dict.fromkeys(variant.required(1), REQUIRED))
    assert (spec.per_row, spec.scored, spec.probabilities) == (variant.per_row, variant.scored, variant.probabilities)
    assert {p.name for p in spec.parameters if p.vector} == set(variant.vectors)


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
    upstream = random_upstream(pred.shape[: 1 if VARIANTS[name].per_row else 2], dtype)
    arguments = dict(reduction='none') | VARIANTS[name].arguments(1, reason)
    return pred, target, oracle_of(name, pred, target, None, upstream, None, arguments)


@pytest.mark.parametrize(
    'form, name, reason, dtype',
    [
        pytest.param(
            *(form, name, reason, dtype),
            marks=pytest.mark.compiled if dtype in HALVES or reason != 'the defaults' else (),
        )
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
    check(name, device, pred, target, exact=exact, reduction='none', **VARIANTS[name].arguments(1, reason))


@pytest.mark.parametrize('dtype', DTYPES[:3], ids=str)
@pytest.mark.parametrize(
    'name, reason', [each for each in POINTS if each[0] != 'focal' and VARIANTS[each[0]].probabilities]
)
def test_probabilities(any_backend, device, dtype, name, reason):
    """The ends 0 and 1 included; the gradient is finite in every dtype."""
    p = np.concatenate([np.linspace(0, 1, 257), np.geomspace(1e-6, 0.1, 60), 1 - np.geomspace(1e-3, 0.1, 20)])
    pred = torch.from_numpy(p).to(dtype).repeat(len(SCORES)).unsqueeze(1)
    target = torch.tensor(SCORES, dtype=dtype)[torch.arange(len(pred)) // len(p)].unsqueeze(1)
    _, grad = check(
        name, device, pred, target, reduction='none', probabilities=True, **VARIANTS[name].arguments(1, reason)
    )
    assert grad.isfinite().all()


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
    variant, weight = VARIANTS[name], torch.rand(shape[:-1], generator=generator(3))
    parameters = variant.arguments(shape[-1])
    for reduction in ('none', 'mean') if shape[-1] == 4100 else ('none', 'mean', 'sum'):
        loss, _ = check(
            name, device, predictions(*shape), target_of(name, shape), weight, reduction=reduction, **parameters
        )
        assert loss.shape == ((shape[:-1] if variant.per_row else shape) if reduction == 'none' else ())


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('form', ('labels', 'scored', 'dense'))
def test_target_forms(device, name, form):
    if (form == 'scored' and not VARIANTS[name].scored) or (form == 'dense' and not VARIANTS[name].dense):
        pytest.skip('not a target of this loss')
    target = target_of(name, (N, C), form)
    for reduction in ('none', 'mean'):
        check(name, device, predictions(N, C), target, reduction=reduction, **VARIANTS[name].arguments(C))
        check(name, device, predictions(N, C).half(), target, reduction=reduction, **VARIANTS[name].arguments(C))


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('make', LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(device, name, make):
    pred = make()
    weight = torch.rand(pred.shape[:-1], generator=generator(3))
    target = target_of(name, pred.shape)
    for reduction in ('none', 'mean'):
        loss, _ = check(name, device, pred, target, weight, reduction=reduction, **VARIANTS[name].arguments(C))
    leaf = pred.to(device).requires_grad_()
    loss = functional.FUNCTIONS[name](leaf, _to(device, target), weight.to(device), **_of_logits(name, C))
    (grad,) = torch.autograd.grad(loss, leaf)
    assert grad.stride() == torch.empty_like(leaf).stride()
    assert loss.dim() == 0


def _of_logits(name: str, classes: int) -> dict:
    return VARIANTS[name].arguments(classes) | VARIANTS[name].of_logits


def _to(device, value):
    return tuple(each.to(device) for each in value) if isinstance(value, tuple) else value.to(device)


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
    arguments = {'reduction': 'mean'} | call | VARIANTS[name].arguments(C)
    loss, _ = check(name, device, predictions(N, C), target_of(name, (N, C)), **arguments)
    if isinstance(call['avg_factor'], torch.Tensor):
        assert loss.shape == call['avg_factor'].shape


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
def test_weights(device, name):
    """One a row, also where rows and classes are as many; one per element; zeros."""
    parameters = VARIANTS[name].arguments(C)
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
    target = (label, torch.rand(N, generator=generator(4))) if VARIANTS[name].scored else label
    weight = torch.rand(N, generator=generator(3))
    for reduction in ('none', 'mean'):
        _, grad = check(
            name, device, pred, target, weight, reduction=reduction, ignore_index=255, **VARIANTS[name].arguments(C)
        )
        assert (grad[::4] == 0).all()


@pytest.mark.parametrize('name', ELEMENTWISE)
def test_nothing_gives_zero_with_a_gradient(device, name):
    leaf = torch.empty(0, C, device=device, requires_grad=True)
    for avg_factor in (None, 2.0, torch.tensor([0.0], device=device)):
        loss = functional.FUNCTIONS[name](
            leaf,
            _to(device, target_of(name, (0, C))),
            avg_factor=avg_factor,
            **VARIANTS[name].arguments(C),
            **VARIANTS[name].of_logits,
        )
        assert (loss == 0).all()
        loss.sum().backward()
    assert leaf.grad.shape == (0, C)


@pytest.mark.compiled
@pytest.mark.parametrize(
    'name, vectors',
    [
        (name, vectors)
        for name in ELEMENTWISE
        for all_of_them in [list(VARIANTS[name].vectors)]
        for vectors in [*([each] for each in all_of_them), *([all_of_them] if len(all_of_them) > 1 else [])]
    ],
)
def test_parameters_a_class(device, name, vectors):
    """Alone and together, as lists and as tensors."""
    given = {key: value for key, value in numbers_of_classes(name, C).items() if key in vectors}
    for form, convert in itertools.product(('labels', 'dense'), (list, torch.tensor)):
        if form == 'dense' and not VARIANTS[name].dense:
            continue
        parameters = VARIANTS[name].arguments(C) | {key: convert(value) for key, value in given.items()}
        check(name, device, predictions(N, C), target_of(name, (N, C), form), reduction='none', **parameters)
    check(name, device, predictions(C, N).t(), target_of(name, (N, C), 'labels'), reduction='mean', **parameters)


@pytest.mark.compiled
@pytest.mark.parametrize('name', ELEMENTWISE)
def test_the_same_input_gives_the_same_bits(device, name):
    pred, target = predictions(MORE_ROWS, 7).to(device).requires_grad_(), _to(device, target_of(name, (MORE_ROWS, 7)))
    results = []
    for _ in range(2):
        loss = functional.FUNCTIONS[name](pred, target, **_of_logits(name, 7))
        results.append((loss.detach(), *torch.autograd.grad(loss, pred)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.compiled
@pytest.mark.parametrize('name', [name for name in ELEMENTWISE if VARIANTS[name].per_row])
@pytest.mark.parametrize('dtype', DTYPES[1:3], ids=str)
def test_rows_of_halves(device, name, dtype):
    """One value per row in pred's dtype, summed in float32; reduced losses are float32."""
    pred, parameters = predictions(N, 70).to(dtype), VARIANTS[name].arguments(70)
    loss, grad = check(name, device, pred, target_of(name, (N, 70)), reduction='none', **parameters)
    assert loss.dtype == grad.dtype == dtype
    loss, grad = check(name, device, pred, target_of(name, (N, 70)), reduction='mean', **parameters)
    assert loss.dtype == torch.float32 and grad.dtype == dtype
