"""What the tests share: backends, devices, NaN-poisoned allocations, and what they leave out where mmdet is missing."""

from __future__ import annotations
import contextlib
import functools
import os
import sys
from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch

import focal_plugin
from focal_plugin import backend
from focal_plugin.compatibility import COMPILES

# Fresh allocations hold NaN, so that an output that a kernel leaves unwritten can't pass; torch fills them from 2.2.
if hasattr(torch.utils, 'deterministic'):
    torch.utils.deterministic.fill_uninitialized_memory = True
torch.use_deterministic_algorithms(True, warn_only=True)

# For each config that has one of mmdet's as its base, mmengine parses a hundred metafiles of mmdet's: half a second.
with contextlib.suppress(ModuleNotFoundError):
    from mmengine.config import utils

    utils.load = functools.lru_cache(maxsize=None)(utils.load)

# What a machine with torch, Triton and pytest may lack: what imports one of these is skipped there, and says which.
NEEDED_BY_SOME = ('mmdet', 'mmengine', 'mmcv', 'matplotlib', 'mypy', 'numpy', 'PIL', 'pycocotools', 'tqdm', 'yaml')


@contextlib.contextmanager
def _skipped_where_missing(name: str) -> Iterator[None]:
    try:
        yield
    except (ModuleNotFoundError, pytest.Collector.CollectError) as error:
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        package = getattr(missing, 'name', None) or ''
        if package.partition('.')[0] not in NEEDED_BY_SOME:
            raise
        pytest.skip(f'{name} needs {package.partition(".")[0]}, which is not installed', allow_module_level=True)


class _Module(pytest.Module):
    def collect(self):
        with _skipped_where_missing(self.nodeid):
            return super().collect()


def pytest_pycollect_makemodule(module_path, parent):
    return _Module.from_parent(parent, path=module_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with _skipped_where_missing(item.location[0]):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with _skipped_where_missing(item.location[0]):
        return (yield)


@pytest.fixture(autouse=True)
def _seeded():
    """The same random numbers for a test whichever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def one_thread():
    """One thread adds up in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _scopes_are_kept():
    """mmengine's default scope, which whatever builds a Runner or a detector leaves behind, stays what it was."""
    before = dict(_scopes())
    yield
    _scopes().clear()
    _scopes().update(before)


def _scopes() -> dict:
    registry = sys.modules.get('mmengine.registry')
    return {} if registry is None else registry.DefaultScope._instance_dict


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leaves to the long run what a release checks, what a sample leaves out and, interpreted, what tests/gpu asks of the
    compiled kernels; marks what needs a stand-in.
    """
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker('release'):
            item.add_marker(pytest.mark.slow)
        if 'stand_in' in getattr(item, 'fixturenames', ()):
            item.add_marker('stand_in')
        if backend.INTERPRETING and item.get_closest_marker('triton') and item.get_closest_marker('compiled'):
            item.add_marker(pytest.mark.slow)
        if not item.get_closest_marker('slow') and (not backend.INTERPRETING or item.get_closest_marker('triton')):
            cases[item.nodeid.partition('[')[0]].append(item)
    for each in cases.values():
        for item in set(each).difference(_sample(each)):
            item.add_marker(pytest.mark.slow)


def _sample(cases: list[pytest.Item]) -> list[pytest.Item]:
    """Those of a test's cases that the default run takes: as many as its mark `sampled` says, spread evenly."""
    mark = cases[0].get_closest_marker('sampled')
    counts = [] if mark is None else [*mark.args, *(mark.kwargs.values() if backend.INTERPRETING else ())]
    count = min([len(cases), *counts])
    return [cases[i * len(cases) // count] for i in range(count)]


one_graph = pytest.mark.skipif(
    not COMPILES, reason='the compiler of this version of torch leaves a loss out of its graph'
)
ON_A_GPU = ('triton', 'cuda')  # backends that look at no label and no probability: they would have to wait for it

# Where no GPU is, FOCAL_STAND_IN=1 runs the host side of the tests marked gpu: kernels are launched, but write no values.
STAND_IN = os.environ.get('FOCAL_STAND_IN') == '1' and not backend.INTERPRETING and not torch.cuda.is_available()

# Where no GPU is, FOCAL_SOFTWARE=1 runs the tests of the cuda backend in software, those marked software.
SOFTWARE = os.environ.get('FOCAL_SOFTWARE') == '1' and not backend.INTERPRETING and not torch.cuda.is_available()


def _backends() -> list:
    params = ['torch', *(['native'] if backend.HAS_NATIVE else [])]
    if backend.HAS_TRITON and (backend.INTERPRETING or torch.cuda.is_available() or STAND_IN):
        marks = [pytest.mark.triton, *([] if backend.INTERPRETING else [pytest.mark.gpu])]
        params.append(pytest.param('triton', marks=marks))
    if torch.version.cuda is not None and torch.cuda.is_available():
        params.append(pytest.param('cuda', marks=pytest.mark.gpu))
    elif SOFTWARE:
        params.append(pytest.param('cuda', marks=pytest.mark.software))
    return params


def device_of(name: str) -> str:
    """Where a backend is tested: Triton on the GPU if there is one, or on a stand-in for one, or interpreted on the CPU."""
    if name == 'triton' and STAND_IN:
        return 'standin'
    if name == 'cuda' and not SOFTWARE:
        return 'cuda'
    return 'cuda' if name == 'triton' and torch.cuda.is_available() and not backend.INTERPRETING else 'cpu'


def may_look(name: str) -> bool:
    """Whether a backend looks at values where it is tested: neither a GPU nor what runs its kernels in software does."""
    return device_of(name) == 'cpu' and name != 'cuda'


@pytest.fixture
def stand_in(monkeypatch) -> str:
    """A device in the place of a GPU, on which the Triton backend is forced: its launches are made, but not run."""
    if backend.INTERPRETING or torch.cuda.is_available() or not backend.HAS_TRITON:
        pytest.skip('needs Triton, and no GPU')
    from tests.gpu.device import compute_without_kernels

    with focal_plugin.use_backend('triton'):
        yield compute_without_kernels(monkeypatch)


@pytest.fixture(params=_backends())
def any_backend(request):
    """Each backend that this process can run, forced."""
    if STAND_IN and request.param == 'triton':
        request.getfixturevalue('stand_in')
    if SOFTWARE and request.param == 'cuda':
        from tests.gpu.nvrtc import install

        install(request.getfixturevalue('monkeypatch'), 90)
    with focal_plugin.use_backend(request.param):
        yield request.param


@pytest.fixture
def mmcv_op(monkeypatch) -> None:
    """Where there is a GPU, mmcv's op on it: built from its sources, if the installed mmcv came without CUDA."""
    if torch.cuda.is_available():
        from mmcv.ops import focal_loss

        from tools.benchmarks.contenders import CannotRunError, provide_mmcv_op

        monkeypatch.setattr(focal_loss, 'ext_module', focal_loss.ext_module)
        try:
            provide_mmcv_op(torch.empty(0, device='cuda'))
        except CannotRunError as reason:
            pytest.skip(str(reason))


@pytest.fixture
def device(any_backend) -> str:
    return device_of(any_backend)
