"""Which of a test's cases the default run takes."""

from types import SimpleNamespace

import pytest

from focal_plugin import backend
from tests.conftest import _sample


def cases(count: int, *marks) -> list:
    by_name = {mark.name: mark for mark in marks}
    return [SimpleNamespace(number=number, get_closest_marker=by_name.get) for number in range(count)]


@pytest.mark.parametrize(
    ('marks', 'compiled', 'interpreted'),
    [
        ((), [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
        ((pytest.mark.sampled(3).mark,), [0, 2, 4], [0, 2, 4]),
        ((pytest.mark.sampled(interpreted=2).mark,), [0, 1, 2, 3, 4, 5, 6], [0, 3]),
        ((pytest.mark.sampled(4, interpreted=1).mark,), [0, 1, 3, 5], [0]),
        ((pytest.mark.sampled(9).mark,), [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
    ],
    ids=['without a mark', 'some', 'some if interpreted', 'fewer if interpreted', 'more than there are'],
)
def test_some_are_taken_spread_evenly(monkeypatch, marks, compiled, interpreted):
    for interpreting, wanted in ((False, compiled), (True, interpreted)):
        monkeypatch.setattr(backend, 'INTERPRETING', interpreting)
        assert [case.number for case in _sample(cases(7, *marks))] == wanted
