"""Any two of the ways in which the compiled kernels can be called meet in a case, held to the float64 oracle."""

import itertools
import random

import pytest
import torch

from focal_plugin import use_backend
from focal_plugin.math import SPECS
from focal_plugin.math.spec import REQUIRED
from tests.gpu.driver import needs_compiler
from tests.losses import test_softmax_focal
from tests.variants import test_variants
from tests.variants.test_variants import ELEMENTWISE, VECTORS, forms_of, labels, parameters_of, predictions, target_of

VARIANTS = [(name, form) for name in ELEMENTWISE for form in forms_of(name)] + [('softmax', 'labels')]
AXES = {
    'variant': VARIANTS,
    'classes': (1, 3, 7, 8, 80, 365, 1203),
    'dtype': (torch.float32, torch.bfloat16, torch.float16),
    'layout': ('contiguous', 'a map', 'transposed', 'an offset that breaks alignment', 'a slice'),
    'reduction': ('none', 'sum', 'mean'),
    'extra': ('nothing', 'a weight a row', 'a weight an element', 'avg_factor', 'ignore_index', 'a number a class'),
    'capability': (80, 90),
}


LAYOUTS = {
    'contiguous': lambda c, dtype: predictions(37, c).to(dtype),
    'a map': lambda c, dtype: predictions(2, c, 3, 7).to(dtype).permute(0, 2, 3, 1),
    'transposed': lambda c, dtype: predictions(c, 37).to(dtype).t(),
    'an offset that breaks alignment': lambda c, dtype: predictions(37 * c + 1).to(dtype)[1:].view(37, c),
    'a slice': lambda c, dtype: predictions(39, c + 3).to(dtype)[1:-1, 1:-2],
}
EXTRAS = {
    'nothing': lambda pred, vectors: {},
    'a weight a row': lambda pred, vectors: dict(weight=torch.rand(pred.shape[:-1]) + 0.5),
    'a weight an element': lambda pred, vectors: dict(weight=torch.rand(pred.shape) + 0.5),
    'avg_factor': lambda pred, vectors: dict(avg_factor=torch.tensor([13.5])),
    'ignore_index': lambda pred, vectors: dict(ignore_index=0),
    'a number a class': lambda pred, vectors: vectors,
}
AXES = {
    'variant': [(name, form) for name in ELEMENTWISE for form in forms_of(name)] + [('softmax', 'labels')],
    'classes': (1, 3, 7, 8, 80, 365, 1203),
    'dtype': (torch.float32, torch.bfloat16, torch.float16),
    'layout': LAYOUTS,
    'reduction': ('none', 'sum', 'mean'),
    'extra': EXTRAS,
    'capability': (80, 90),
}


def vectors_of(name: str, classes: int) -> dict[str, list[float]]:
    """A number a class of each parameter that takes them."""
    spec = SPECS[f'{name}_focal' if name == 'softmax' else name]
    own = [p for p in spec.parameters if p.vector and p.default is not REQUIRED]
    return {p.name: [VECTORS[p.name][c % 5] + 0.5 * bool(p.above) for c in range(classes)] for p in own}


def possible(variant, classes, reduction, extra, **_) -> bool:
    name, form = variant
    return not (
        (name == 'softmax' and (classes == 1 or extra == 'a weight an element'))
        or (extra == 'avg_factor' and reduction != 'mean')
        or (extra == 'ignore_index' and form == 'dense')
        or (extra == 'a number a class' and not vectors_of(name, classes))
    )


def pairs(case: dict) -> set:
    return set(itertools.combinations(case.items(), 2))


def pairs_to_meet() -> set:
    """Those that a case can hold whose other values allow the most."""
    most = {'variant': ('focal', 'labels'), 'classes': 80, 'reduction': 'mean', 'extra': 'nothing'}
    return {
        ((a, one), (b, other))
        for a, b in itertools.combinations(AXES, 2)
        for one, other in itertools.product(AXES[a], AXES[b])
        if possible(**(most | {a: one, b: other}))
    }


def covering() -> list[dict]:
    """Of some random cases with a pair that is missing the one with most of these, until none is missing."""
    draw, cases, missing = random.Random(0), [], pairs_to_meet()
    for pair in sorted(missing, key=str):
        if pair in missing:
            drawn = [{axis: draw.choice([*each]) for axis, each in AXES.items()} | dict(pair) for _ in range(60)]
            cases.append(max(filter(lambda case: possible(**case), drawn), key=lambda case: len(pairs(case) & missing)))
            missing -= pairs(cases[-1])
    return cases


CASES = covering()
FIRST = list({case['variant'][0]: case for case in reversed(CASES)}.values())  # of each variant, by default


def test_any_two_meet():
    assert set().union(*map(pairs, CASES)) == pairs_to_meet() and all(possible(**case) for case in CASES)


@needs_compiler
@pytest.mark.parametrize(
    'case', [case if case in FIRST else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
    ids=lambda case: '-'.join(map(str, case.values())),
)  # fmt: skip
def test_values_and_gradients(monkeypatch, case):
    from tests.gpu.driver import install

    (name, form), classes = case['variant'], case['classes']
    driver = install(monkeypatch, case['capability'])
    pred = LAYOUTS[case['layout']](classes, case['dtype'])
    arguments = {'reduction': case['reduction']} | EXTRAS[case['extra']](pred, vectors_of(name, classes))
    target = labels(*pred.shape[:-1], classes=classes - 1) if name == 'softmax' else target_of(name, pred.shape, form)
    if 'ignore_index' in arguments:  # such rows may hold anything
        pred[(target[0] if form == 'scored' else target) == arguments['ignore_index']] = float('nan')
    with use_backend('triton'):
        if name == 'softmax':
            test_softmax_focal.check('cpu', pred, target, **arguments)
        else:
            test_variants.check(name, 'cpu', pred, target, **(parameters_of(name, classes) | arguments))
    assert len(driver.launches) == (2 if case['reduction'] == 'none' else 3)
