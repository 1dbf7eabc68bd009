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
@pytest.mark.parametrize(
    'spoil',
    [lambda whole: b'', lambda whole: whole[:-9], lambda whole: whole[:50] + b'?' + whole[51:]],
    ids=['an empty file', 'a part of it', 'another byte'],
)
def test_what_a_crash_left_of_a_file_is_compiled_anew(cache, spoil):
    first = compiler.compiled('sum', SUM, 'sm_80')
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))
    assert compiler.compiled('sum', SUM, 'sm_80') == first
    assert file.read_bytes() == whole


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


PLACES = {
    "conda's": ('sys.prefix', 'lib/libnvrtc.so.12'),
    "conda's, on Windows": ('sys.prefix', 'Library/bin/nvrtc64_120_0.dll'),
    'of the Python that an environment is made from': ('sys.base_prefix', 'lib/libnvrtc.so.12'),
    "a toolkit's": ('CUDA_HOME', 'lib64/libnvrtc.so.12'),
    "a toolkit's, on Windows": ('CUDA_PATH', 'bin/nvrtc64_120_0.dll'),
    "a module's of a cluster": ('LD_LIBRARY_PATH', 'libnvrtc.so.12'),
    "NVIDIA's wheel": ('sys.path', 'nvidia/cuda_nvrtc/lib/libnvrtc.so.12'),
    "NVIDIA's wheel, on Windows": ('sys.path', 'nvidia/cuda_nvrtc/bin/nvrtc64_120_0.dll'),
    "NVIDIA's wheel from CUDA 13 on": ('sys.path', 'nvidia/cu13/lib/libnvrtc.so.13'),
}


@pytest.mark.parametrize(('root', 'file'), PLACES.values(), ids=PLACES)
def test_where_it_is_looked_for(tmp_path, monkeypatch, root, file):
    for name in ('CUDA_HOME', 'CUDA_PATH', 'LD_LIBRARY_PATH'):
        monkeypatch.delenv(name, raising=False)
    if root.startswith('sys.'):
        monkeypatch.setattr(root, [str(tmp_path)] if root == 'sys.path' else str(tmp_path))
    else:
        monkeypatch.setenv(root, str(tmp_path))
    made = tmp_path / file
    made.parent.mkdir(parents=True, exist_ok=True)
    for name in (made.name, made.name.replace('nvrtc', 'nvrtc-builtins'), made.name.replace('.', '.alt.', 1)):
        made.with_name(name).touch()
    inside = [folder for folder in compiler._folders() if tmp_path in (folder, *folder.parents)]
    assert [library for folder in inside for library in compiler._libraries(folder)] == [made]


@pytest.mark.parametrize(
    ('cuda', 'found'),
    [
        ('11.8', 'libnvrtc-672ee683.so.11.2'),
        ('12.8', 'libnvrtc.so'),
        ('13.0', 'nvrtc64_130_0.dll'),
        ('14.0', 'libnvrtc-672ee683.so.11.2'),
        (None, 'libnvrtc-672ee683.so.11.2'),
    ],
)
def test_of_several_that_of_torchs_cuda_serves(tmp_path, monkeypatch, cuda, found):
    """An update of torch leaves the wheels of the CUDA before."""
    for name in ('libnvrtc-672ee683.so.11.2', 'libnvrtc.so.12.4.127', 'nvrtc64_130_0.dll'):
        (tmp_path / name).touch()
    (tmp_path / 'libnvrtc.so').symlink_to('libnvrtc.so.12.4.127')
    names = ('libnvrtc-672ee683.so.11.2', 'libnvrtc.so', 'nvrtc64_130_0.dll')
    monkeypatch.setattr(compiler, '_folders', lambda: [tmp_path])
    monkeypatch.setattr(compiler, '_libraries', lambda folder: [folder / name for name in names])
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    assert compiler.path.__wrapped__().name == found


@pytest.mark.parametrize(
    ('capability', 'arch'),
    [
        ((9, 0), 'sm_90'),
        ((8, 9), 'sm_89'),
        pytest.param((10, 3), 'sm_100', id='newer than NVRTC, of a major version that it knows'),
        pytest.param((11, 0), 'compute_100', id='of one that it does not know'),
    ],
)
def test_a_gpu_newer_than_nvrtc_is_served(monkeypatch, capability, arch):
    monkeypatch.setattr(compiler, '_architectures', lambda: (50, 60, 75, 80, 86, 89, 90, 100))
    assert compiler.arch_of(*capability) == arch


@needs_nvrtc
def test_a_gpu_that_nvrtc_no_longer_knows_is_said(monkeypatch):
    monkeypatch.setattr(compiler, '_architectures', lambda: (75, 80))
    with pytest.raises(RuntimeError, match=r'NVRTC 1\d\.\d+ compiles for GPUs from sm_75 on, this one is of sm_61'):
        compiler.arch_of(6, 1)


@needs_nvrtc
def test_nvrtc_names_the_gpus_that_it_compiles_for():
    assert {80, 90} <= set(compiler._architectures()) and compiler.arch_of(9, 0) == 'sm_90'


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


@pytest.mark.parametrize('images', (1, 2))
def test_more_than_32_bits_of_logits_are_taken_whatever_their_dimensions(images):
    pred = torch.empty(images, 2**31 // 80 + 10, 80, device='meta')
    target = torch.empty(pred.shape[:2], dtype=torch.int64, device='meta')
    assert elementwise._launch_of(focal_problem(pred, target, 'cuda'), None, None) is not None


def test_who_has_no_home_compiles_anew(monkeypatch):
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr('os.path.expanduser', lambda path: path)
    assert compiler.compiled('sum', SUM, 'compute_80') == compiler.compiled('sum', SUM, 'compute_80')
    assert not Path('~').exists()
