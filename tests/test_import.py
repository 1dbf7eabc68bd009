"""What importing costs and needs, each in a process of its own."""

import re
import sysconfig
from pathlib import Path

import pytest

from tests.processes import WITHOUT_MMDET, run


def test_imports_no_compiler_of_its_own():
    """Beside mmdet, which every user imports, only its own modules: no torch._dynamo and no Triton, for a second or more.

    Neither for a loss on a CPU.
    """
    code = """
import sys, time
start = time.perf_counter()
import mmdet.models
between, loaded = time.perf_counter(), set(sys.modules)
import focal_plugin
end = time.perf_counter()
import torch
from mmdet.registry import MODELS
focal_plugin.functional.sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2).long())
MODELS.build(dict(type='FusedFocalLoss'))(torch.zeros(2, 3), torch.zeros(2).long())
MODELS.build(dict(type='FusedEqualizedFocalLoss', num_classes=3))
packages = {'.'.join(name.split('.')[: 2 if name.startswith('torch.') else 1]) for name in set(sys.modules) - loaded}
print(sorted(packages - {'focal_plugin'}), f'mmdet.models {between - start:.2f} s, focal_plugin {end - between:.2f} s more')
"""
    found = run(code, TRITON_INTERPRET='0').splitlines()[-1]
    assert found.startswith('[] '), f'imported beside its own modules: {found}'
    print(found)


def test_imports_no_triton_without_mmdet():
    code = """
import sys
import focal_plugin, torch
focal_plugin.functional.sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2).long())
print([name for name in ('torch._dynamo', 'triton') if name in sys.modules])
"""
    assert run(WITHOUT_MMDET + code, TRITON_INTERPRET='0') == '[]'


def test_works_without_triton():
    code = """
import sys
sys.modules['triton'] = None
import torch, focal_plugin
from mmdet.registry import MODELS
loss = MODELS.build(dict(type='FusedFocalLoss'))
print(float(loss(torch.zeros(2, 3), torch.zeros(2).long())))
"""
    assert float(run(code)) == pytest.approx((2 * 0.25 + 4 * 0.75) * 0.25 * 0.6931471805599453 / 6)


def test_works_without_the_native_kernel_and_says_so_once():
    code = """
import logging, sys, torch
logging.basicConfig(stream=sys.stdout, format='%(message)s')
from focal_plugin import backend, functional
backend.HAS_NATIVE = False
for _ in range(2):
    value = functional.sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2).long())
print(float(value))
"""
    lines = run(WITHOUT_MMDET + code).splitlines()
    assert len([line for line in lines if 'without its native CPU kernel' in line]) == 1
    assert float(lines[-1]) == pytest.approx((2 * 0.25 + 4 * 0.75) * 0.25 * 0.6931471805599453 / 6)


def test_environment_variable_forces_a_backend():
    code = """
import torch
from focal_plugin import functional
try:
    functional.sigmoid_focal_loss(torch.zeros(2, 3).double(), torch.zeros(2).long())
except ValueError as error:
    print(error)
"""
    assert "backend 'native' can't take logits of torch.float64" in run(
        WITHOUT_MMDET + code, FOCAL_PLUGIN_BACKEND='native'
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ('lacks', 'served'), [('', 'triton'), ('compiler', 'cuda'), ('CC', 'cuda'), ('headers', 'cuda')]
)
def test_where_triton_can_build_no_launcher_the_cuda_backend_serves(tmp_path, lacks, served):
    """With NVRTC, that is; without it Triton is asked, whose self-test says what is missing."""
    (tmp_path / 'gcc').touch(0o755)
    variables = {'PATH': str(tmp_path / lacks)} | ({'CC': str(tmp_path / 'cc')} if lacks == 'CC' else {})
    include = sysconfig.get_path('include', 'posix_prefix') if lacks != 'headers' else str(tmp_path)
    code = f"""
import os, sysconfig
os.environ.pop('CC', None)
os.environ.update({variables!r})
sysconfig.get_path = lambda *name: {include!r}
from focal_plugin import backend
backend.HAS_TRITON = True
for backend.HAS_NVRTC in (True, False):
    print(backend._of_gpu('cuda'))
backend.HAS_NVRTC = True
print(backend._of_gpu('xpu'))
"""
    assert run(WITHOUT_MMDET + code).split() == [served, 'triton', 'triton']


@pytest.mark.parametrize('capability', ('default', 'avx2'))
def test_every_instruction_set(capability):
    """The library for a lesser processor, chosen as torch chooses its own, on this one."""
    code = """
import torch
from focal_plugin import functional
from focal_plugin.kernels.native import loader
torch.manual_seed(0)
x = (torch.randn(999, 7) * 5).requires_grad_()
target = torch.randint(0, 8, (999,))
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    leaf = x.detach().to(dtype).requires_grad_()
    loss = functional.sigmoid_focal_loss(leaf, target, gamma=1.5)
    exact = leaf.detach().double().requires_grad_()
    reference = functional.sigmoid_focal_loss(exact, target, gamma=1.5)
    loss.backward(), reference.backward()
    torch.testing.assert_close(loss.double(), reference, rtol=1e-6, atol=0)
    torch.testing.assert_close(leaf.grad.float(), exact.grad.float(), rtol=2 * torch.finfo(dtype).eps + 1e-6, atol=1e-7)
print(loader.path().name.split('.')[0])
"""
    name = {'default': 'lib_baseline', 'avx2': 'lib_avx2'}[capability]
    assert run(WITHOUT_MMDET + code, ATEN_CPU_CAPABILITY=capability) == name


def test_config_dir_holds_the_configs():
    code = """
from pathlib import Path
import focal_plugin
print((Path(focal_plugin.config_dir()) / '_base_' / 'focal_plugin.py').is_file())
"""
    assert run(WITHOUT_MMDET + code) == 'True'


def test_no_test_module_imports_another():
    """What they share is in modules of its own: importing a module of tests would collect or run what is not asked for."""
    tests = Path(__file__).parent
    importing = re.compile(r'^\s*(from|import) .*\btest_', re.MULTILINE)
    assert [str(path) for path in tests.rglob('*.py') if importing.search(path.read_text())] == []
