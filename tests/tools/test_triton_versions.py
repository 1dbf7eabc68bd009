"""tools/kernel_analysis/triton_versions.py: what it makes of what its environments say."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool():
    return importlib.import_module('tools.kernel_analysis.triton_versions')


def lines(*errors) -> str:
    return ''.join(json.dumps({'what': 'focal, fp32, C = 80', 'error': error}) + '\n' for error in errors)


def done(stdout: str, stderr: str = '', returncode: int = 0) -> subprocess.CompletedProcess:
    return subprocess.CompletedProcess([], returncode, stdout, stderr)


@pytest.mark.parametrize(
    ('output', 'died', 'expected'),
    [
        (lines(None, None), None, (2, 2, '')),
        (lines(None, 'E: a\nb', 'E: a\nc', 'F: d'), None, (1, 4, '2 x E: a; 1 x F: d')),
        (lines(None), 'LLVM ERROR', (1, 1, 'then the compiler died: LLVM ERROR')),
        ('', 'no module named triton', (0, 0, 'then the compiler died: no module named triton')),
    ],
)
def test_counts(tool, output, died, expected):
    assert tuple(tool.counted(output, died).values()) == expected


@pytest.fixture
def environments(tool, monkeypatch, tmp_path):
    """Environments that are not made: a version's self-test; what it says of each architecture; versions that there are."""

    def installed(folder, version):
        if version == '0.0.0':
            raise subprocess.CalledProcessError(1, ['pip', 'install', 'triton==0.0.0'])
        return folder / version

    def run(folder, *arguments, interpret=False):
        if interpret:
            return (
                done('', 'Traceback\nImportError: no self-test', 1)
                if folder.name == '2.0.0'
                else done('warning\npasses\n')
            )
        if arguments[1] == 'pytest':
            return done('FAILED 1\n2 failed, 3 passed in 1 s\n' if folder.name == '2.0.0' else '5 passed in 1 s\n')
        return done(lines(None, 'E: no linker') if arguments[-1] == 'gfx942' else lines(None, None))

    monkeypatch.setattr(tool, 'installed', installed)
    monkeypatch.setattr(tool, 'run', run)
    return tmp_path / 'versions.csv'


def test_one_failure_does_not_stop_the_others(tool, environments, monkeypatch, capsys):
    command = ['triton_versions.py', '0.0.0', '2.0.0', '3.9.0', '--arch', 'sm_90', 'gfx942', '--csv', environments]
    monkeypatch.setattr(sys, 'argv', list(map(str, command)))
    assert tool.main() == 1
    printed = capsys.readouterr()
    assert 'no Triton 0.0.0' in printed.err
    rows = importlib.import_module('tools.benchmarks.results').read(environments)
    names = ('triton', 'arch', 'compiled', 'kernels', 'failed', 'executed in software', 'self-test, interpreted')
    assert [tuple(row[name] for name in names) for row in rows] == [
        ('2.0.0', 'sm_90', '2', '2', '', '3 of 5', 'ImportError: no self-test'),
        ('2.0.0', 'gfx942', '1', '2', '1 x E: no linker', '3 of 5', 'ImportError: no self-test'),
        ('3.9.0', 'sm_90', '2', '2', '', '5 of 5', 'passes'),
        ('3.9.0', 'gfx942', '1', '2', '1 x E: no linker', '5 of 5', 'passes'),
    ]
    assert len(printed.out.splitlines()) == 2 + len(rows)


def test_table_of_the_readme(tool, environments, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.setattr(
        sys, 'argv', ['triton_versions.py', '2.0.0', '3.9.0', '--arch', 'sm_90', 'gfx942', '--csv', str(environments)]
    )
    assert tool.main() == 0
    tables = importlib.import_module('tools.benchmarks.version_tables')
    table = tables.triton_versions(importlib.import_module('tools.benchmarks.results').read(environments))
    assert table.splitlines()[2:] == [
        '| 2.0.0 | 2 of 2 | 1 of 2: 1 x E: no linker | 3 of 5 | refused |',
        '| 3.9.0 | 2 of 2 | 1 of 2: 1 x E: no linker | 5 of 5 | passes |',
    ]


def test_the_committed_table(tool):
    """Every version from the oldest that serves compiles all kernels for NVIDIA, right; the newest's interpreter is too.

    Two of 3.2's kernels read half a register that nothing was written to, which the machine refuses.
    """
    rows = importlib.import_module('tools.benchmarks.results').read(tool.TRITON_VERSIONS)
    assert [row['triton'] for row in rows[:: len({row['arch'] for row in rows})]] == tool.VERSIONS
    nvidia = [row for row in rows if row['arch'].startswith('sm_')]
    assert all(row['compiled'] == row['kernels'] != '0' and not row['failed'] for row in nvidia)
    calls = {row['triton']: row['executed in software'] for row in rows}
    assert calls.pop('3.2.0') == '214 of 216' and set(calls.values()) == {'216 of 216'}
    assert rows[-1]['self-test, interpreted'] == 'passes'
