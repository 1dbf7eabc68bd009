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

# Focal loss at C = 80: at most twice the issue slots that a GPU can spend and stay bound by memory, and MUFU a logit.
OF_THE_BUDGET = 2
MUFU = {
    ('fwd', 'bf16'): 5,
    ('fwd', 'fp16'): 5,
    ('fwd', 'fp32'): 10,
    ('bwd', 'bf16'): 10,
    ('bwd', 'fp16'): 10,
    ('bwd', 'fp32'): 20,
}

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
    assert counted == {
        'widest access (bits)': 128,
        'narrowest access (bits)': 64,
        'predicted slots/logit': round((2 + 3 * 7 + 3 + 2 + 2) / 14, 1),
        'predicted MUFU/logit': round((3 * 2 + 1) / 14, 2),
    }


def test_counts_of_gcn(tool):
    listing = tool.parse(GCN, 'kernel.py')
    counted = tool.count(listing, logits_lines=range(10, 12), logit_bits=16, slots=16, logits=15)
    assert counted == {
        'widest access (bits)': 128,
        'narrowest access (bits)': 128,
        'predicted slots/logit': round((2 + 2 * 5 + 1) / 15, 1),
        'predicted MUFU/logit': round(2 / 15, 2),
    }


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
    with (tmp_path / 'report.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        if SPECS[row['kernel'][:-4]].skeleton == 'elementwise':
            assert row['narrowest access (bits)'] == row['widest access (bits)'] == '128', row
        if row['kernel'].startswith('focal_') and row['kernel'][6:] in ('fwd', 'bwd') and row['arch'].startswith('sm_'):
            assert float(row['of the budget']) <= OF_THE_BUDGET, row
            assert 0 < float(row['predicted MUFU/logit']) <= MUFU[row['kernel'][6:], row['dtype']], row
    return rows


@needs_triton
def test_bf16_on_sm_90(tmp_path):
    """One of each skeleton, and one with parameters and statistics a class."""
    specs = ['focal', 'equalized_focal', 'softmax_focal']
    rows = checked(tmp_path, '--arch', 'sm_90', '--dtype', 'bf16', '--spec', *specs)
    assert [row['kernel'] for row in rows] == [f'{spec}_{kind}' for spec in specs for kind in ('fwd', 'bwd')]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize('arch', ARCHS)
def test_every_kernel_for_every_target(tmp_path, arch):
    rows = checked(tmp_path, '--arch', arch, '--dtype', 'bf16', 'fp32', timeout=1800)
    assert len(rows) == 2 * 2 * len(SPECS)


@needs_triton
def test_the_committed_report_has_every_kernel():
    with (ROOT / 'tools/results/kernels.csv').open() as file:
        rows = list(csv.DictReader(file))
    kernels = {f'{spec}_{kind}' for spec in SPECS for kind in ('fwd', 'bwd')}
    assert {(row['kernel'], row['arch']) for row in rows} == {
        (kernel, arch) for kernel in kernels for arch in ('sm_80', 'sm_90', 'gfx942')
    }


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
