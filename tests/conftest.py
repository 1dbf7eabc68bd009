"""What the tests share: backends, devices, NaN-poisoned allocations."""

import os

import pytest
import torch

import focal_plugin
from focal_plugin import backend

# Fresh allocations hold NaN, so that an output that a kernel leaves unwritten can't pass.
torch.utils.deterministic.fill_uninitialized_memory = True
torch.use_deterministic_algorithms(True, warn_only=True)


@pytest.fixture(autouse=True)
def _seeded():
    """The same random numbers for a test whichever ran before it."""
    torch.manual_seed(0)


# Where no GPU is, FOCAL_STAND_IN=1 runs the host side of the tests marked gpu: kernels are launched, but write no values.
STAND_IN = os.environ.get('FOCAL_STAND_IN') == '1' and not backend.INTERPRETING and not torch.cuda.is_available()


def _backends() -> list:
    params = ['torch', *(['native'] if backend.HAS_NATIVE else [])]
    if backend.HAS_TRITON and (backend.INTERPRETING or torch.cuda.is_available() or STAND_IN):
        marks = [pytest.mark.triton, *([] if backend.INTERPRETING else [pytest.mark.gpu])]
        params.append(pytest.param('triton', marks=marks))
    return params


def device_of(name: str) -> str:
    """Where a backend is tested: Triton on the GPU if there is one, or on a stand-in for one, or interpreted on the CPU."""
    if name == 'triton' and STAND_IN:
        return 'standin'
    return 'cuda' if name == 'triton' and torch.cuda.is_available() and not backend.INTERPRETING else 'cpu'


@pytest.fixture
def stand_in(monkeypatch) -> str:
    """A device in the place of a GPU, on which the Triton backend is forced: its launches are made, but not run."""
    if backend.INTERPRETING or torch.cuda.is_available() or not backend.HAS_TRITON:
        pytest.skip('needs Triton, and no GPU')
    from gpu.device import compute_without_kernels

    with focal_plugin.use_backend('triton'):
        yield compute_without_kernels(monkeypatch)


@pytest.fixture(params=_backends())
def any_backend(request):
    """Each backend that this process can run, forced."""
    if STAND_IN and request.param == 'triton':
        request.getfixturevalue('stand_in')
    with focal_plugin.use_backend(request.param):
        yield request.param


@pytest.fixture
def device(any_backend) -> str:
    return device_of(any_backend)
