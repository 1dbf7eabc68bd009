"""The sums of absolute gradients by class that the equalized focal loss gathers."""

import numpy as np
import pytest
import torch

from focal_plugin import functional
from tests.oracle.check_variants import STATISTICS, check_statistics
from tests.oracle.inputs import DTYPES, C, labels, predictions
from tests.oracle.variants import statistics
from tests.variants import VARIANTS


@pytest.mark.compiled
@pytest.mark.parametrize('dtype', DTYPES[:3], ids=str)
@pytest.mark.parametrize('arguments', STATISTICS.values(), ids=STATISTICS)
def test_statistics_are_sums_of_absolute_gradients(device, arguments, dtype):
    check_statistics(device, arguments, dtype)


def test_statistics_of_maps_and_of_more_rows_than_a_tile(device):
    parameters = VARIANTS['equalized_focal'].arguments(C)
    for pred in (predictions(2, C, 6, 9).permute(0, 2, 3, 1), predictions(3000, C)):
        target = labels(*pred.shape[:-1])
        sums = torch.zeros(2, C, dtype=torch.float64, device=device)
        leaf = pred.to(device).requires_grad_()
        functional.equalized_focal_loss(leaf, target.to(device), statistics=sums, **parameters).backward()
        expected = statistics('equalized_focal', pred, target, **parameters)
        np.testing.assert_allclose(sums.cpu(), expected, rtol=1e-5)
