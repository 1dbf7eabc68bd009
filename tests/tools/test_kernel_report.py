"""The kernel report: the compiled kernels against the budget of instructions. test_machine_code.py has small listings."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from focal_plugin.kernels.cuda import compiler
from focal_plugin.kernels.cuda.driver import FEW_BYTES
from focal_plugin.math import SPECS

ROOT = Path(__file__).parents[2]
NVIDIA = [f'sm_{n}' for n in (75, 80, 86, 89, 90, 100, 120)]
ARCHS = {'triton': [*NVIDIA, 'gfx90a', 'gfx942', 'gfx950'], 'cuda': ['sm_60', 'sm_70', *NVIDIA]}
KERNELS = [*SPECS, 'mask_focal', *(f'focal_maps_{size}' for size in ('100x168', '50x84', '25x42', '13x21'))]
MAPS = {name for name in KERNELS if 'maps' in name}
HALF_TYPES = ('fp16', 'bf16')
# Accesses of maps whose planes begin between multiples of 16 bytes: of 8 where those divide them, or an element; the cuda
# backend takes four logits of a map or of a softmax at most.
WIDTHS = {
    (backend, name, 'fp32'): width
    for backend in ARCHS
    for name, width in (('focal_maps_25x42', '64'), ('focal_maps_13x21', '32'))
}
WIDTHS |= {('triton', f'focal_maps_{size}', dtype): '16' for size in ('25x42', '13x21') for dtype in HALF_TYPES}
WIDTHS |= {
    ('cuda', name, dtype): width
    for name, width in {
        'focal_maps_100x168': '64', 'focal_maps_50x84': '64', 'focal_maps_25x42': '32', 'focal_maps_13x21': '16',
        'softmax_focal': '64',
    }.items()
    for dtype in HALF_TYPES
}  # fmt: skip
TOOL = 'tools.kernel_analysis.report'
needs_triton = pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='Triton is not installed')
both_backends = pytest.mark.parametrize(
    'backend',
    (
        'triton',
        pytest.param('cuda', marks=pytest.mark.skipif(compiler.path() is None, reason='NVRTC is not installed')),
    ),
)

# What the focal loss may take on sm_90 at C = 80: issue slots and MUFU a logit. Triton's programs of 512 logits take one
# slot more than those of 2048, and an H100 is faster with them.
LIMITS = {
    'triton': {('fwd', 'bf16'): (23, 3), ('bwd', 'bf16'): (38, 5), ('fwd', 'fp32'): (40, 5), ('bwd', 'fp32'): (76, 10)},
    'cuda': {
        ('fwd', 'bf16'): (24.5, 3.1),
        ('bwd', 'bf16'): (30, 5),
        ('fwd', 'fp32'): (31, 5),
        ('bwd', 'fp32'): (36, 10),
    },
}
# The share of the memory's speed that is enough where half the bytes leave half the time for the arithmetic.
HALF_TYPES_SHARE = 0.8


@pytest.fixture(scope='module')
def tool():
    return importlib.import_module(TOOL)


@pytest.mark.usefixtures('tool')
def test_what_bounds_a_kernel():
    """A made-up card with round numbers; a kernel is as slow as what it has too much of."""
    from tools.kernel_analysis.gpus import GPU, REACHED

    gpu = GPU('made up', 'sm_00', bandwidth=1e12 / REACHED, clock=1e9, units=10)
    seconds = gpu.seconds(moved=4, issue=20, fp32=12, integer=8, mufu=3)
    assert seconds == pytest.approx(
        {'memory': 4e-12, 'issue': 20 / 1.28e12, 'FP32': 12 / 1.28e12, 'integer': 8 / 6.4e11, 'MUFU': 3 / 1.6e11}
    )
    assert max(seconds, key=seconds.get) == 'MUFU'


def checked(tmp_path, *arguments, timeout=600, **environment) -> list[dict[str, str]]:
    """The rows of a run: no spills, wide accesses, the focal loss held to the budget."""
    done = subprocess.run(
        [sys.executable, '-m', TOOL, *arguments, '--csv', tmp_path / 'report.csv'],
        env={name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert done.stdout.splitlines()[-1] == 'spills: 0'
    assert 'enable_fp_fusion' not in done.stderr and 'Warning' not in done.stderr  # Triton 3.10 changes its default
    with (tmp_path / 'report.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    rows = [row for row in rows if row['backend'] and row['kernel'] != 'sum']
    for row in rows:
        if row.get('predicted slots/logit'):
            widest = WIDTHS.get((row['backend'], row['kernel'].rpartition('_')[0], row['dtype']), '128')
            assert row['narrowest access (bits)'] == row['widest access (bits)'] == widest, row
        if row['kernel'][:-4] == 'focal' and row['arch'] == 'sm_90':
            hold_to_limits(row)
    return rows


def kinds_of(name: str) -> tuple[str, ...]:
    return ('fwd', 'bwd', 'both') if name in MAPS else ('fwd', 'bwd')


def hold_to_limits(row: dict[str, str]) -> None:
    slots, mufu = LIMITS[row['backend']][row['kernel'][-3:], row['dtype']]
    assert 0 < float(row['predicted slots/logit']) <= slots, row
    assert 0 < float(row['predicted MUFU/logit']) <= mufu, row


@needs_triton
@both_backends
@pytest.mark.slow
def test_bf16_on_sm_90(tmp_path, backend):
    """One of each family, one with parameters and statistics per class, and maps, of which both are made in one pass too."""
    specs = ['focal', 'equalized_focal', 'softmax_focal', 'focal_maps_100x168']
    rows = checked(tmp_path, '--arch', 'sm_90', '--backend', backend, '--dtype', 'bf16', '--spec', *specs)
    assert [row['kernel'] for row in rows] == [f'{spec}_{kind}' for spec in specs for kind in kinds_of(spec)]


@needs_triton
@pytest.mark.parametrize(
    ('arch', 'spec'),
    [('sm_80', 'position_supervised'), ('sm_90', 'asymmetric'), ('gfx942', 'quality_focal')],
)
@pytest.mark.slow
def test_no_line_of_the_source_is_asked(tmp_path, arch, spec):
    """Code that names no line is counted as code that does."""
    arguments = ('--arch', arch, '--backend', 'triton', '--dtype', 'fp32', '--spec', spec)
    no_nvcc = {'PATH': str(tmp_path)}  # which would compile mmcv's kernels as well
    rows = checked(tmp_path, *arguments, TRITON_DISABLE_LINE_INFO='0', **no_nvcc)
    assert [row['kernel'] for row in rows if row['card'] == rows[0]['card']] == [f'{spec}_fwd', f'{spec}_bwd']
    (tmp_path / 'report.csv').unlink()
    assert checked(tmp_path, *arguments, TRITON_DISABLE_LINE_INFO='1', **no_nvcc) == rows


@pytest.mark.slow
@needs_triton
def test_old_gpus_are_the_cuda_backends(tmp_path):
    """Whose machine code is not disassembled: without spills it needs no more registers than the GPU has."""
    rows = checked(tmp_path, '--arch', 'sm_60', 'sm_70', '--dtype', 'bf16', '--spec', 'focal')
    assert [(row['kernel'], row['backend'], row['arch']) for row in rows] == [
        (f'focal_{kind}', 'cuda', arch) for arch in ('sm_60', 'sm_70') for kind in ('fwd', 'bwd')
    ]
    assert all(0 < int(row['registers']) <= 64 and not row.get('predicted slots/logit') for row in rows)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(('backend', 'arch'), [(backend, arch) for backend in ARCHS for arch in ARCHS[backend]])
def test_every_kernel_for_every_target(tmp_path, backend, arch):
    rows = checked(tmp_path, '--arch', arch, '--backend', backend, '--dtype', 'bf16', 'fp32', timeout=1800)
    assert {(row['kernel'], row['dtype']) for row in rows} == {
        (f'{name}_{kind}', dtype) for name in KERNELS for kind in kinds_of(name) for dtype in ('bf16', 'fp32')
    }


def committed() -> list[dict[str, str]]:
    with (ROOT / 'tools/results/kernels.csv').open() as file:
        return list(csv.DictReader(file))


@pytest.mark.release
@pytest.mark.parametrize('backend', ARCHS)
def test_the_committed_report_has_every_kernel(backend):
    kernels = {f'{name}_{kind}' for name in KERNELS for kind in kinds_of(name)}
    rows = [row for row in committed() if row['backend'] == backend]
    found = {(row['kernel'], row['arch']) for row in rows if row['classes'] == '80' and row['registers']}
    assert {row['arch'] for row in rows if row['kernel'] == 'sum'} == {arch for _, arch in found}
    assert found == {(kernel, arch) for kernel in kernels for arch in ARCHS[backend] if arch != 'gfx950'}
    assert all(int(row['spills (bytes)']) <= FEW_BYTES * (backend == 'cuda') for row in rows)


def test_the_committed_focal_loss_is_within_the_limits():
    rows = [row for row in committed() if row['kernel'] in ('focal_fwd', 'focal_bwd') and row['dtype'] != 'fp16']
    rows = [row for row in rows if (row['arch'], row['classes']) == ('sm_90', '80')]
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        hold_to_limits(row)
        assert (row['narrowest access (bits)'], row['spills (bytes)']) == ('128', '0')


def test_the_committed_report_is_at_the_roofline():
    """Focal, quality focal and varifocal on A100 and H100: 95 % of the memory's speed, a bf16 forward HALF_TYPES_SHARE."""
    rows = [
        row
        for row in committed()
        if row['kernel'][:-4] in ('focal', 'quality_focal', 'varifocal')
        and row['backend'] == 'triton'
        and row['classes'] == '80'
        and row['card'].startswith(('A100', 'H100'))
        and row['dtype'] in ('fp32', 'bf16')
    ]
    assert len(rows) == 3 * 2 * 2 * 3
    for row in rows:
        share = HALF_TYPES_SHARE if (row['kernel'][-3:], row['dtype']) == ('fwd', 'bf16') else 0.95
        assert float(row['predicted share of the memory roofline']) >= share, row


def test_one_pass_takes_less_than_two_in_the_committed_report():
    """Issue slots, of which most are the terms that loss and gradient share, and time."""
    rows = {(row['kernel'], row['backend'], row['dtype'], row['card']): row for row in committed()}
    passes = {key: row for key, row in rows.items() if key[0].endswith('_both') and row['predicted slots/logit']}
    assert passes
    for (kernel, *rest), row in passes.items():
        two = [rows[(kernel.replace('both', kind), *rest)] for kind in ('fwd', 'bwd')]
        for what in ('predicted slots/logit', 'predicted ms, RetinaNet batch 16'):
            assert float(row[what]) <= 0.8 * sum(float(each[what]) for each in two), row


@pytest.mark.parametrize('backend', ARCHS)
def test_odd_numbers_of_classes_in_the_committed_report(backend):
    """At most 1.7 times the slots of 80 classes, but where memory is as much the limit as 80 classes have to reach.

    The bytes of a row's label are shared by 3 logits instead of 80, so there is more time to compute in.
    """
    rows = [row for row in committed() if row['backend'] == backend and row['kernel'][:-4] in SPECS]
    rows = [row for row in rows if row['arch'] == 'sm_90']
    slots = {(row['kernel'], row['dtype'], row['classes']): float(row['predicted slots/logit']) for row in rows}
    odd = [row for row in rows if row['classes'] != '80']
    assert len(odd) == 3 * len(rows) / 4
    for row in odd:
        ratio = float(row['predicted slots/logit']) / slots[row['kernel'], row['dtype'], '80']
        share = 0.95 if row['dtype'] == 'fp32' else HALF_TYPES_SHARE
        assert round(ratio, 2) <= 1.7 or (
            row['classes'] == '3' and float(row['predicted share of the memory roofline']) >= share
        ), row


def test_the_committed_report_beats_mmcv_by_8():
    slots = {
        row['kernel']: float(row['predicted slots/logit'])
        for row in committed()
        if (row['arch'], row['dtype'], row['classes']) == ('sm_90', 'fp32', '80') and row['backend'] != 'cuda'
    }
    assert slots['mmcv_fwd'] >= 8 * slots['focal_fwd']


@pytest.mark.slow
@needs_triton
def test_rows_that_are_read_several_times_are_no_count():
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            TOOL,
            '--arch',
            'sm_90',
            '--dtype',
            'fp32',
            '--spec',
            'softmax_focal',
            '--classes',
            '20000',
        ],
        env={name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        'softmax_focal, --classes 20000: it reads rows so long several times'
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(('--arch', 'sm_12'), "invalid choice: 'sm_12'"), (('--classes', '0'), '--classes 0: at least 1')],
)
def test_wrong_arguments(tool, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, 'argv', ['kernel_report.py', *arguments])
    with pytest.raises(SystemExit, match='2'):
        tool.main()
    assert message in capsys.readouterr().err


def test_nothing_to_compile_with(tool, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['kernel_report.py'])
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    with pytest.raises(SystemExit, match='TRITON_INTERPRET=1 interprets kernels'):
        tool.main()
    monkeypatch.delenv('TRITON_INTERPRET')
    monkeypatch.setitem(sys.modules, 'triton', None)
    with pytest.raises(SystemExit, match='Triton is not installed'):
        tool.main()


@needs_triton
def test_no_run_time_compiler(tool, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['kernel_report.py'])
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    monkeypatch.setattr(compiler, 'path', lambda: None)
    with pytest.raises(SystemExit, match='pip install nvidia-cuda-nvrtc-cu12, or --backend triton'):
        tool.main()
