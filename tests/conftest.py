"""What the tests share: backends, devices, NaN-poisoned allocations."""

import os

import pytest
import torch

import focal_plugin
from focal_plugin import backend

torch.manual_seed(0)

# Fresh allocations hold NaN, so that an output that a kernel leaves unwritten can't pass.
torch.utils.deterministic.fill_uninitialized_memory = True
if os.environ.get('FOCAL_PLUGIN_TEST_POISON', '1') == '1':
    torch.use_deterministic_algorithms(True, warn_only=True)


def _available() -> list[str]:
    names = ['torch']
    if backend.has_native():
        names.append('native')
    if backend.interpreting() or torch.cuda.is_available():
        names.append('triton')
    return names


def device_of(name: str) -> str:
    """Where a backend is tested: Triton on the GPU if there is one, else interpreted on the CPU."""
    return 'cuda' if name == 'triton' and torch.cuda.is_available() and not backend.interpreting() else 'cpu'


@pytest.fixture(params=_available())
def any_backend(request):
    """Each backend that this process can run, forced."""
    with focal_plugin.use_backend(request.param):
        yield request.param


@pytest.fixture
def device(any_backend) -> str:
    return device_of(any_backend)
