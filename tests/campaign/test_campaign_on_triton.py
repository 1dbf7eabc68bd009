"""The campaign at length; a file a backend, so that they run side by side."""

import pytest

import focal_plugin
from focal_plugin import backend
from tests.campaign import report
from tests.campaign.report import CALLS, SEED

pytestmark = [pytest.mark.slow, pytest.mark.triton]
MANY = 1000


@pytest.mark.skipif(not backend.INTERPRETING, reason='interpreted calls; test_campaign.py has those of a GPU')
def test_many_random_calls_are_right():
    with focal_plugin.use_backend('triton'):
        report.check('triton', SEED, range(CALLS, MANY))
