"""The campaign at length; a file a backend, so that they run side by side."""

import pytest

import focal_plugin
from tests.campaign import report
from tests.campaign.report import CALLS, SEED

pytestmark = pytest.mark.slow
MANY = 50_000


def test_many_random_calls_are_right():
    with focal_plugin.use_backend('native'):
        report.check('native', SEED, range(CALLS, MANY))
