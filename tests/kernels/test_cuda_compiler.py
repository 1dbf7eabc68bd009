"""The cuda backend's compiler: what it keeps on disk, and what it says where it can't serve."""

from pathlib import Path

import pytest
import torch

from focal_plugin import functional, use_backend
from focal_plugin.kernels.cuda import compiler, elementwise
from tests.kernels.problems import focal_problem

needs_nvrtc = pytest.mark.skipif(compiler.path() is None, reason="NVIDIA's run-time compiler is not installed")
SUM = {'HAS_AVG': False, 'AVG': 'float', 'EPS': '1e-7f', 'DIMS': 1, 'ROWS_IN_ORDER': True, 'THREADS': 512}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'focal_plugin/cuda'


@needs_nvrtc
@pytest.mark.parametrize('arch', ('sm_60', 'sm_75', 'sm_80', 'sm_90', 'sm_120'))
def test_compiles_for_every_gpu_from_pascal_on(cache, arch):
    assert compiler.compiled('sum', SUM, arch).startswith(b'\x7fELF')


@needs_nvrtc
def test_a_kernel_is_compiled_once(cache, monkeypatch):
    first = compiler.compiled('sum', SUM, 'compute_80')
    monkeypatch.setattr(compiler, '_compile', None)
    assert compiler.compiled('sum', SUM, 'compute_80') == first
    assert [file.suffix for file in cache.iterdir()] == ['.ptx']


@needs_nvrtc
@pytest.mark.parametrize('changed', ('macros', 'arch', 'sources'))
def test_another_kernel_is_not_taken_for_it(cache, monkeypatch, changed):
    compiler.compiled('sum', SUM, 'compute_80')
    if changed == 'sources':
        found = compiler._sources() | {'new.h': ''}
        monkeypatch.setattr(compiler, '_sources', lambda: found)
    macros = SUM | {'HAS_AVG': True} if changed == 'macros' else SUM
    compiler.compiled('sum', macros, 'compute_90' if changed == 'arch' else 'compute_80')
    assert len([*cache.iterdir()]) == 2


@needs_nvrtc
def test_a_folder_that_cannot_be_written_to_costs_a_compilation_each_time(cache):
    cache.parent.mkdir()
    cache.write_text('a file in the place of the folder')
    assert compiler.compiled('sum', SUM, 'compute_80') == compiler.compiled('sum', SUM, 'compute_80')


@needs_nvrtc
def test_what_the_compiler_says_is_said(cache):
    with pytest.raises(RuntimeError, match=r'(?s)NVRTC_ERROR_COMPILATION.*AVG.*undefined'):
        compiler.compiled(
            'sum', {name: value for name, value in SUM.items() if name != 'AVG'} | {'HAS_AVG': True}, 'sm_80'
        )


def test_logits_on_a_cpu_are_refused():
    with use_backend('cuda'), pytest.raises(ValueError, match="backend 'cuda' can't take logits on cpu"):
        functional.sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize('shape, strides', (((2**31, 1), (1, 1)), ((2, 3), (2**31, 1))), ids=('rows', 'a stride'))
def test_more_than_32_bits_count_is_refused(shape, strides):
    pred = torch.empty_strided(shape, strides, device='meta')
    target = torch.empty(shape[:1], dtype=torch.int64, device='meta')
    with pytest.raises(ValueError, match='counts in 32 bits'):
        elementwise._launch_of(focal_problem(pred, target, 'cuda'), None, None)


def test_more_than_32_bits_between_channels_is_refused():
    far = torch.empty_strided((1, 2, 4, 4), (16, 2**31, 4, 1), device='meta')
    masks = focal_problem(far, torch.empty(1, 4, 4, device='meta'), 'cuda', channel=torch.zeros(1))
    with pytest.raises(ValueError, match=r'counts in 32 bits, got .* a stride of 2147483648: split the logits'):
        elementwise._launch_of(masks, None, None)


def test_who_has_no_home_compiles_anew(monkeypatch):
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr('os.path.expanduser', lambda path: path)
    assert compiler.compiled('sum', SUM, 'compute_80') == compiler.compiled('sum', SUM, 'compute_80')
    assert not Path('~').exists()
