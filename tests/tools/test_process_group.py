"""The process group of a script that the tools run: joined where mmengine can't, and left at the end of it."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

ROOT = Path(__file__).parents[2]
ELASTIC = dict(TORCHELASTIC_RUN_ID='1', RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='localhost')
JOIN = """
from torch import distributed
distributed.init_process_group('gloo', init_method='file://{}', rank=0, world_size=1)
"""
STEPS = """
import sys, torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
model = DistributedDataParallel(torch.nn.Linear(50, 50))
for _ in range(5):
    model(torch.randn(4, 50)).sum().backward()
"""


@pytest.fixture(scope='module')
def tool():
    return importlib.import_module('tools.training.mmdet_scripts')


@pytest.fixture
def script(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / 'script.py'
        file.write_text(text.format(tmp_path / 'store'))
        return file

    return write


@pytest.fixture
def under_torchrun(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip('mmengine joins the processes of a GPU by itself')
    for name, value in ELASTIC.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_PORT', '0')


@pytest.mark.parametrize(
    ('text', 'error'),
    [
        ('', None),
        ('raise LookupError', LookupError),
        ('raise SystemExit(0)', SystemExit),
        ('raise KeyboardInterrupt', KeyboardInterrupt),
        ('distributed.destroy_process_group()', None),
    ],
    ids=['ends', 'raises', 'exits', 'is interrupted', 'leaves the group itself'],
)
@pytest.mark.parametrize('joins', [False, True], ids=['our group', 'a group of its own'])
def test_the_group_is_left_when_the_script(tool, script, monkeypatch, request, joins, text, error):
    if not joins:
        request.getfixturevalue('under_torchrun')
    begin = JOIN if joins else 'from torch import distributed\n'
    file = script(f'{begin}assert distributed.is_initialized()\n{text}\n')
    if error is None:
        tool.run_script(file)
    else:
        with pytest.raises(error):
            tool.run_script(file)
    assert not distributed.is_initialized()


def test_without_torchrun_no_group_is_made(tool, script):
    tool.run_script(script('from torch import distributed\nassert not distributed.is_initialized()\n'))


def torchrun(file: Path) -> subprocess.CompletedProcess:
    starter = file.with_name('main.py')
    starter.write_text(
        f'import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(ROOT)!r})\n'
        f'from tools.training.mmdet_scripts import run_script\nrun_script(Path({str(file)!r}))\n'
    )
    command = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', str(starter)]
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_other(script):
    """The other waits for it in a sum; it would wait for half an hour."""
    done = torchrun(
        script(STEPS + 'if distributed.get_rank() == 1: raise LookupError("on purpose")\ndistributed.barrier()')
    )
    assert done.returncode == 1 and 'on purpose' in done.stderr


@pytest.mark.slow
def test_ten_runs_beside_a_busy_core_end_with_zero(script):
    """A group that was never left aborted one process of two in about one run of six."""
    file = script(STEPS)
    busy = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        runs = [torchrun(file) for _ in range(10)]
    finally:
        busy.kill()
        busy.wait()
    assert [run.stderr for run in runs if run.returncode != 0] == []
