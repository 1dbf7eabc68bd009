"""What the tests share: backends, devices, NaN-poisoned allocations."""

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Interpreted, what tests/gpu asks of the compiled kernels is left to the long run."""
    for item in items:
        if backend.INTERPRETING and item.get_closest_marker('triton') and item.get_closest_marker('compiled'):
            item.add_marker(pytest.mark.slow)


def _backends() -> list:
    params = ['torch', *(['native'] if backend.HAS_NATIVE else [])]
    if backend.HAS_TRITON and (backend.INTERPRETING or torch.cuda.is_available()):
        marks = [pytest.mark.triton, *([] if backend.INTERPRETING else [pytest.mark.gpu])]
        params.append(pytest.param('triton', marks=marks))
    return params


def device_of(name: str) -> str:
    """Where a backend is tested: Triton on the GPU if there is one, else interpreted on the CPU."""
    return 'cuda' if name == 'triton' and torch.cuda.is_available() and not backend.INTERPRETING else 'cpu'


@pytest.fixture(params=_backends())
def any_backend(request):
    """Each backend that this process can run, forced."""
    with focal_plugin.use_backend(request.param):
        yield request.param


@pytest.fixture
def device(any_backend) -> str:
    return device_of(any_backend)
