"""Random calls, valid and invalid, of every function and class: as the reference has them, or refused."""

import re

import pytest
from campaign import invalid, report
from campaign.tensors import Random

from focal_plugin import backend

SEED = 0
CALLS = 100 if backend.INTERPRETING else 1500
MANY = 1000 if backend.INTERPRETING else 50_000
INVALID = 5 if backend.INTERPRETING else 40

# On interpreted Triton a wrong label makes its row NaN, as on a GPU.
LABELS = ('a label that no class has', 'a channel that no mask has', 'a label where there are no classes')


def test_random_calls_are_right(any_backend):
    calls = range(CALLS)
    found = report.wrong(any_backend, SEED, calls)
    assert not found, report.message(any_backend, SEED, found, calls)


@pytest.mark.slow
def test_many_random_calls_are_right(any_backend):
    calls = range(CALLS, MANY)
    found = report.wrong(any_backend, SEED, calls)
    assert not found, report.message(any_backend, SEED, found, calls)


@pytest.mark.parametrize('kind', invalid.KINDS)
def test_a_mistake_is_refused_with_the_name_of_the_argument(any_backend, kind):
    if any_backend == 'triton' and kind in LABELS:
        pytest.skip('a GPU does not look: the row is NaN')
    wrong = []
    for index in range(INVALID):
        variant, arguments, words = invalid.refusal(Random(SEED, index, list(invalid.KINDS).index(kind)), kind)
        try:
            result = f'accepted: {invalid.invoke(variant, arguments)}'
        except (TypeError, ValueError) as error:
            result = '' if re.search(words, str(error)) else f'{type(error).__name__} without {words}: {error}'
        except Exception as error:  # from inside
            result = f'{type(error).__name__}: {error}'
        if result:
            wrong.append(f'{variant} {arguments}\n  {result[:300]}')
    assert not wrong, f'{len(wrong)} of {INVALID} on {any_backend}, the first:\n' + '\n'.join(wrong[:5])
