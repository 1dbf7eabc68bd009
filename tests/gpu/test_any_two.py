"""Any two of the ways in which the compiled kernels can be called meet in a case, held to the float64 oracle.

Of Triton's kernels and of those that NVRTC compiles.
"""

import itertools
import random

import pytest
import torch

from focal_plugin import use_backend
from tests.gpu.driver import needs_compiler
from tests.gpu.nvrtc import needs_nvrtc
from tests.oracle import check_softmax, check_variants
from tests.oracle.check_variants import ELEMENTWISE, forms_of, numbers_of_classes, target_of
from tests.oracle.inputs import labels, predictions
from tests.variants import VARIANTS

LAYOUTS = {
    'contiguous': lambda c, dtype: predictions(37, c).to(dtype),
    'a map': lambda c, dtype: predictions(2, c, 3, 7).to(dtype).permute(0, 2, 3, 1),
    'transposed': lambda c, dtype: predictions(c, 37).to(dtype).t(),
    'an offset that breaks alignment': lambda c, dtype: predictions(37 * c + 1).to(dtype)[1:].view(37, c),
    'a slice': lambda c, dtype: predictions(39, c + 3).to(dtype)[1:-1, 1:-2],
}
EXTRAS = {
    'nothing': lambda pred, vectors: {},
    'a weight per row': lambda pred, vectors: dict(weight=torch.rand(pred.shape[:-1]) + 0.5),
    'a weight per element': lambda pred, vectors: dict(weight=torch.rand(pred.shape) + 0.5),
    'avg_factor': lambda pred, vectors: dict(avg_factor=torch.tensor([13.5])),
    'ignore_index': lambda pred, vectors: dict(ignore_index=0),
    'a number per class': lambda pred, vectors: vectors,
}
AXES = {
    'variant': [(name, form) for name in ELEMENTWISE for form in forms_of(name)] + [('softmax_focal', 'labels')],
    'classes': (1, 3, 7, 8, 80, 365, 1203),
    'dtype': (torch.float32, torch.bfloat16, torch.float16),
    'layout': LAYOUTS,
    'reduction': ('none', 'sum', 'mean'),
    'extra': EXTRAS,
    'passes': (1, 2),
    'capability': (80, 90),
}


def possible(variant, classes, reduction, extra, passes, **_) -> bool:
    name, form = variant
    return not (
        (name == 'softmax_focal' and (classes == 1 or extra == 'a weight per element'))
        or (extra == 'avg_factor' and reduction != 'mean')
        or (extra == 'ignore_index' and form == 'dense')
        or (extra == 'a number per class' and not numbers_of_classes(name, classes))
        or (passes == 1 and (name == 'softmax_focal' or reduction == 'none'))
    )


def pairs(case: dict) -> set:
    return set(itertools.combinations(case.items(), 2))


def pairs_to_meet() -> set:
    """Those that a case can hold whose other values allow the most."""
    most = {'variant': ('focal', 'labels'), 'classes': 80, 'reduction': 'mean', 'extra': 'nothing', 'passes': 2}
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


def install(backend: str, monkeypatch, capability: int):
    from tests.gpu import driver, nvrtc

    return (driver if backend == 'triton' else nvrtc).install(monkeypatch, capability)


@pytest.mark.parametrize(
    'backend', (pytest.param('triton', marks=needs_compiler), pytest.param('cuda', marks=needs_nvrtc))
)
@pytest.mark.parametrize(
    'case', [case if case in FIRST else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
    ids=lambda case: '-'.join(map(str, case.values())),
)  # fmt: skip
def test_values_and_gradients(monkeypatch, backend, case):
    (name, form), classes = case['variant'], case['classes']
    driver = install(backend, monkeypatch, case['capability'])
    pred = LAYOUTS[case['layout']](classes, case['dtype'])
    arguments = {'reduction': case['reduction']} | EXTRAS[case['extra']](pred, numbers_of_classes(name, classes))
    target = (
        labels(*pred.shape[:-1], classes=classes - 1) if name == 'softmax_focal' else target_of(name, pred.shape, form)
    )
    if 'ignore_index' in arguments:  # such rows may hold anything
        pred[(target[0] if form == 'scored' else target) == arguments['ignore_index']] = float('nan')
    with use_backend(backend):
        if name == 'softmax_focal':
            check_softmax.check('cpu', pred, target, **arguments)
        else:
            check = check_variants.check if case['passes'] == 2 else check_variants.check_in_one_pass
            check(name, 'cpu', pred, target, **(VARIANTS[name].arguments(classes) | arguments))
    in_one_pass = 4 if backend == 'cuda' else 2  # beside the logits, and over them
    assert len(driver.launches) == (in_one_pass if case['passes'] == 1 else 2 if case['reduction'] == 'none' else 3)
