"""The campaign at length; a file per backend, so that they run side by side."""

import pytest

import focal_plugin
from tests.campaign import report
from tests.campaign.report import CALLS, SEED

pytestmark = pytest.mark.slow
MANY, STEP = 50_000, 250  # files of many tests begin first, so that a long one is not left for the end


@pytest.mark.parametrize('first', range(CALLS, MANY, STEP))
def test_many_random_calls_are_right(first):
    with focal_plugin.use_backend('torch'):
        report.check('torch', SEED, range(first, first + STEP))
