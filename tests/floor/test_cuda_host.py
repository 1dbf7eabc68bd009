"""What the host does for the cuda backend, short of a GPU: on the oldest stack it is what serves NVIDIA's."""

from __future__ import annotations

import pytest
import torch

from focal_plugin.kernels.cuda import driver, elementwise, launches, rowwise
from tests.kernels.problems import focal_problem

C = 8
LAYOUTS = {
    'rows': lambda: torch.randn(30, C),
    'maps': lambda: torch.randn(2, C, 4, 6).permute(0, 2, 3, 1),
    'every other row': lambda: torch.randn(4, 2, 6, C)[:, 0],
    'every other class': lambda: torch.randn(30, 2 * C)[:, ::2],
}


@pytest.fixture
def launched(monkeypatch):
    """The kernels that were launched, in the place of the driver."""
    found = []
    monkeypatch.setattr(driver, 'loaded', lambda kernel, macros, device: kernel)
    monkeypatch.setattr(driver, 'launch', lambda function, *_: found.append(function))
    monkeypatch.setattr(launches, '_kept', {})
    return found


@pytest.mark.parametrize('make', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize('family', (elementwise, rowwise), ids=('elementwise', 'rowwise'))
def test_every_layout_is_launched(launched, family, dtype, make):
    """Python 3.8's math.gcd takes two numbers, strides are more."""
    pred = make().to(dtype)
    target = torch.randint(0, C, pred.shape[:-1])
    kernel, name, output = (
        ('rowwise', 'softmax_focal', 'row') if family is rowwise else ('elementwise', 'focal', 'element')
    )
    summed = focal_problem(pred, target, 'cuda', variant=name)
    each = summed._replace(output=output)
    family.forward(summed)
    family.backward(summed, torch.ones(()))
    assert launched == [kernel, 'sum', kernel]
    family.backward(each, torch.ones_like(family.forward(each)))
    assert len(launched) == 5
