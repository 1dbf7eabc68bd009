"""Which library of the native kernel is loaded."""

import pytest
import torch

from focal_plugin.kernels.native import loader


@pytest.mark.parametrize(
    ('capability', 'built', 'chosen'),
    [
        pytest.param('AVX512', ('avx512', 'avx2', 'baseline'), 'lib_avx512.so', id='the widest that the processor has'),
        pytest.param('AVX2', ('avx512', 'avx2', 'baseline'), 'lib_avx2.so', id='none that it lacks'),
        pytest.param('AVX512', ('avx2', 'baseline'), 'lib_avx2.so', id='the next where a compiler could not build one'),
        pytest.param('AVX512', ('baseline',), 'lib_baseline.so', id='the plainest'),
        pytest.param('SVE256', ('baseline',), 'lib_baseline.so', id='of a processor that has no library of its own'),
        pytest.param('AVX512', (), None, id='none'),
    ],
)
def test_the_library_is_the_widest_built_one_that_the_processor_runs(monkeypatch, tmp_path, capability, built, chosen):
    for name in built:
        (tmp_path / f'lib_{name}.so').touch()
    (tmp_path / 'lib_avx512.cpython-311-x86_64-linux-gnu.so').touch()  # as they were once named: of one Python
    monkeypatch.setenv('FOCAL_PLUGIN_LIBRARIES', str(tmp_path))
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    monkeypatch.setattr(loader, '_loads', lambda path: True)
    path = loader.path.__wrapped__()
    assert path == (chosen and tmp_path / chosen)


def test_a_library_that_can_not_be_loaded_is_left_out(monkeypatch, tmp_path, caplog):
    (tmp_path / 'lib_baseline.so').touch()
    monkeypatch.setenv('FOCAL_PLUGIN_LIBRARIES', str(tmp_path))
    assert loader.path.__wrapped__() is None
    assert 'can not be loaded' in caplog.text
