"""The kernel report: what it reads off small listings, and the compiled kernels against the budget of instructions."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from focal_plugin.math import SPECS

ROOT = Path(__file__).parents[1]
ARCHS = [f'sm_{n}' for n in (75, 80, 86, 89, 90, 100, 120)] + ['gfx90a', 'gfx942', 'gfx950', 'gfx1100']
TOOL = ROOT / 'tools/kernel_report.py'
needs_triton = pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='Triton is not installed')

# What the focal loss may take on sm_90 at C = 80: issue slots and MUFU a logit.
LIMITS = {('fwd', 'bf16'): (22, 3), ('bwd', 'bf16'): (38, 5), ('fwd', 'fp32'): (40, 5), ('bwd', 'fp32'): (76, 10)}

# 2 instructions, 3 trips of 7 (4 logits, 2 MUFU each), 3 that lead through a wide load of 2 logits (and not through the
# narrow ones), 2 where the two ways join (1 MUFU), and 2 at the end.
SASS = """\
	.section	.text.kernel,"ax",@progbits
	//## File "somewhere/kernel.py", line 7
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/              @!P0 LDG.E R2, desc[UR6][R4.64] ;
.L_x_1:
	//## File "somewhere/kernel.py", line 10
        /*0020*/              @!P1 LDG.E.128 R4, desc[UR6][R8.64] ;
	//## File "elsewhere/primitives.py", line 10
        /*0030*/                   MUFU.EX2 R51, R38 ;
        /*0040*/               @P2 MUFU.RCP R8, R8 ;
        /*0050*/                   ISETP.NE.U32.AND P5, PT, R46, R31, PT ;
        /*0060*/              @!P5 FMUL R9, R9, 0.5 ;
	//## File "somewhere/kernel.py", line 11
        /*0070*/                   STG.E.128 desc[UR6][R2.64], R4 ;
        /*0080*/               @P3 BRA `(.L_x_1) ;
        /*0090*/              @!P4 BRA `(.L_x_2) ;
	//## File "somewhere/kernel.py", line 10
        /*00a0*/                   LDG.E.64.CONSTANT R4, desc[UR6][R8.64] ;
        /*00b0*/                   BRA `(.L_x_3) ;
.L_x_2:
        /*00c0*/               @P5 LDG.E R4, desc[UR6][R8.64] ;
        /*00d0*/               @P6 LDG.E R5, desc[UR6][R8.64+0x4] ;
.L_x_3:
        /*00e0*/                   MUFU.EX2 R51, R38 ;
	//## File "somewhere/kernel.py", line 11
        /*00f0*/                   STG.E.64 desc[UR6][R2.64], R4 ;
	//## File "somewhere/kernel.py", line 12
        /*0100*/                   STG.E desc[UR6][R2.64], R7 ;
        /*0110*/                   EXIT ;
.L_x_4:
        /*0120*/                   BRA `(.L_x_4);
        /*0130*/                   NOP;
"""

# 2 instructions, 2 trips of 5 (8 logits, 1 MUFU), 1 at the end.
GCN = """\
kernel:                     ; @kernel
.Lfunc_begin0:
	.loc	1 7 0 prologue_end             ; kernel.py:7:0
	s_load_dwordx2 s[2:3], s[0:1], 0x0
	buffer_load_dword v3, v1, s[24:27], 0 offen
.LBB0_2:                                ; =>This Inner Loop Header: Depth=1
.Ltmp3:
	.loc	1 10 35                        ; kernel.py:10:35
	buffer_load_dwordx4 v[2:5], v2, s[20:23], 0 offen
	.loc	1 43 13 is_stmt 1               ; primitives.py:43:13 @[ kernel.py:10:33 ]
	v_exp_f32_e32 v3, v3
	s_nop 0
	v_pk_mul_f32 v[0:1], v[2:3], v[4:5]
	.loc	1 11 35                        ; kernel.py:11:35
	global_store_dwordx4 v1, v[2:5], s[0:1]
	s_cbranch_scc1 .LBB0_2
	s_endpgm
"""


@pytest.fixture(scope='module')
def tool():
    sys.path.append(str(TOOL.parent))
    spec = importlib.util.spec_from_file_location('kernel_report', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_counts_of_sass(tool):
    listing = tool.parse(SASS, 'kernel.py')
    counted = tool.count(listing, logits_lines=range(10, 12), logit_bits=32, slots=14, logits=14)
    assert counted == pytest.approx(
        {
            'widest access (bits)': 128,
            'narrowest access (bits)': 64,
            'slots/logit': (2 + 3 * 7 + 3 + 2 + 2) / 14,
            'slots/logit without a positive': (2 + 3 * 7 + 3 + 2 + 2) / 14,
            'FP32/logit': 3 / 14,
            'integer/logit': 3 / 14,
            'MUFU/logit': (3 * 2 + 1) / 14,
        }
    )


def test_counts_of_gcn(tool):
    listing = tool.parse(GCN, 'kernel.py')
    counted = tool.count(listing, logits_lines=range(10, 12), logit_bits=16, slots=16, logits=15)
    assert counted == pytest.approx(
        {
            'widest access (bits)': 128,
            'narrowest access (bits)': 128,
            'slots/logit': (2 + 2 * 5 + 1) / 15,
            'slots/logit without a positive': (2 + 2 * 5 + 1) / 15,
            'FP32/logit': 2 / 15,
            'integer/logit': 0,
            'MUFU/logit': 2 / 15,
        }
    )


# 1 load of 4 logits, 3 that only a tile with a positive executes, 2 that all do.
WITH_BRANCH = """\
	.section	.text.kernel,"ax",@progbits
	//## File "somewhere/kernel.py", line 5
        /*0000*/                   LDG.E.128 R4, desc[UR6][R8.64] ;
        /*0010*/              @!P0 BRA `(.L_x_1) ;
	//## File "somewhere/kernel.py", line 7
        /*0020*/                   FMUL R9, R9, 0.5 ;
        /*0030*/                   FADD R9, R9, 0.5 ;
        /*0040*/                   MUFU.EX2 R51, R38 ;
.L_x_1:
	//## File "somewhere/kernel.py", line 9
        /*0050*/                   FMUL R9, R9, 0.5 ;
        /*0060*/                   EXIT ;
"""


def test_tiles_with_a_positive_take_the_longer_way(tool):
    listing = tool.parse(WITH_BRANCH, 'kernel.py')
    counted = tool.count(listing, {5}, 32, slots=4, logits=4, positive_lines={7}, positive_tiles=0.25)
    assert counted['slots/logit without a positive'] == 4 / 4
    assert counted['slots/logit'] == (0.75 * 4 + 0.25 * 7) / 4
    assert counted['FP32/logit'] == (0.75 * 1 + 0.25 * 3) / 4
    assert counted['MUFU/logit'] == 0.25 / 4


def test_what_bounds_a_kernel():
    """A made-up card with round numbers; a kernel is as slow as what it has too much of."""
    from _gpus import GPU, REACHED

    gpu = GPU('made up', 'sm_00', bandwidth=1e12 / REACHED, clock=1e9, units=10)
    seconds = gpu.seconds(moved=4, issue=20, fp32=12, integer=8, mufu=3)
    assert seconds == pytest.approx(
        {'memory': 4e-12, 'issue': 20 / 1.28e12, 'FP32': 12 / 1.28e12, 'integer': 8 / 6.4e11, 'MUFU': 3 / 1.6e11}
    )
    assert max(seconds, key=seconds.get) == 'MUFU'


def test_unknown_control_flow_is_no_count(tool):
    listing = tool.parse(SASS, 'kernel.py')
    with pytest.raises(ValueError, match='unknown control flow'):
        tool.count(listing, logits_lines=range(10, 12), logit_bits=32, slots=15, logits=15)


def checked(tmp_path, *arguments, timeout=600) -> list[dict[str, str]]:
    """The rows of a run: no spills, wide accesses, the focal loss held to the budget."""
    done = subprocess.run(
        [sys.executable, TOOL, *arguments, '--csv', tmp_path / 'report.csv'],
        env={name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'},
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
    rows = [row for row in rows if row['predicted slots/logit'] and not row['kernel'].startswith('mmcv_')]
    for row in rows:
        assert row['narrowest access (bits)'] == row['widest access (bits)'] == '128', row
        if row['kernel'][:-4] == 'focal' and row['arch'] == 'sm_90':
            slots, mufu = LIMITS[row['kernel'][-3:], row['dtype']]
            assert 0 < float(row['predicted slots/logit']) <= slots, row
            assert 0 < float(row['predicted MUFU/logit']) <= mufu, row
    return rows


@needs_triton
def test_bf16_on_sm_90(tmp_path):
    """One of each skeleton, and one with parameters and statistics a class."""
    specs = ['focal', 'equalized_focal', 'softmax_focal']
    markdown = tmp_path / 'report.md'
    rows = checked(tmp_path, '--arch', 'sm_90', '--dtype', 'bf16', '--spec', *specs, '--markdown', markdown)
    assert all(f'| {row["kernel"]} ' in markdown.read_text() for row in rows)
    assert [row['kernel'] for row in rows] == [f'{spec}_{kind}' for spec in specs for kind in ('fwd', 'bwd')]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize('arch', ARCHS)
def test_every_kernel_for_every_target(tmp_path, arch):
    rows = checked(tmp_path, '--arch', arch, '--dtype', 'bf16', 'fp32', timeout=1800)
    assert {(row['kernel'], row['dtype']) for row in rows} == {
        (f'{name}_{kind}', dtype)
        for name in (*SPECS, 'mask_focal')
        for kind in ('fwd', 'bwd')
        for dtype in ('bf16', 'fp32')
    }


def committed() -> list[dict[str, str]]:
    with (ROOT / 'tools/results/kernels.csv').open() as file:
        return list(csv.DictReader(file))


def test_the_committed_report_has_every_kernel():
    kernels = {f'{name}_{kind}' for name in (*SPECS, 'mask_focal') for kind in ('fwd', 'bwd')}
    found = {(row['kernel'], row['arch']) for row in committed() if row['classes'] == '80' and row['registers']}
    assert {row['arch'] for row in committed() if row['kernel'] == 'sum'} == {arch for _, arch in found}
    assert found == {(kernel, arch) for kernel in kernels for arch in ARCHS if arch not in ('gfx950', 'gfx1100')}
    assert all(row['spills (bytes)'] in ('0', '') for row in committed())


def test_the_committed_report_is_at_the_roofline():
    """Focal, quality focal and varifocal on A100 and H100: 95 % of the memory's speed, a bf16 forward 80 %."""
    rows = [
        row
        for row in committed()
        if row['kernel'][:-4] in ('focal', 'quality_focal', 'varifocal')
        and row['classes'] == '80'
        and row['card'].startswith(('A100', 'H100'))
        and row['dtype'] in ('fp32', 'bf16')
    ]
    assert len(rows) == 3 * 2 * 2 * 3
    for row in rows:
        share = 0.8 if (row['kernel'][-3:], row['dtype']) == ('fwd', 'bf16') else 0.95
        assert float(row['predicted share of the memory roofline']) >= share, row


def test_odd_numbers_of_classes_in_the_committed_report():
    """At most 1.7 times the slots of 80 classes, but where memory is the limit anyway: 3 classes share a row's bytes."""
    rows = [row for row in committed() if row['arch'] == 'sm_90' and row['kernel'][:-4] in SPECS]
    slots = {(row['kernel'], row['dtype'], row['classes']): float(row['predicted slots/logit']) for row in rows}
    odd = [row for row in rows if row['classes'] != '80']
    assert len(odd) == 3 * len(rows) / 4
    for row in odd:
        ratio = float(row['predicted slots/logit']) / slots[row['kernel'], row['dtype'], '80']
        assert round(ratio, 2) <= 1.7 or (
            row['classes'] == '3' and row['predicted share of the memory roofline'] == '1.00'
        ), row


def test_the_committed_report_beats_mmcv_by_8():
    slots = {
        row['kernel']: float(row['predicted slots/logit'])
        for row in committed()
        if (row['arch'], row['dtype'], row['classes']) == ('sm_90', 'fp32', '80')
    }
    assert slots['mmcv_fwd'] >= 8 * slots['focal_fwd']


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
