"""tools/first_gpu.sh beside tools, a torch and an nvidia-smi that are made up: what it runs, what it leaves, its status."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH = """
from types import SimpleNamespace
cuda = SimpleNamespace(is_available=lambda: {gpu})
"""
OF_MMDET = ('variants', 'heads', 'training', 'kernels', 'cut')
TOOL = """
import os, signal, sys
from pathlib import Path
arguments = sys.argv[1:]
print(Path(sys.argv[0]).stem, *arguments)
if '--out' in arguments:
    Path(arguments[arguments.index('--out') + 1]).write_text('rows')
def interrupted():
    "Ctrl-C, which the terminal sends to all, in a tool that ends by itself with 2, as pytest does."
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.killpg(0, signal.SIGINT)
    return 2
print({said!r})
sys.exit({status})
"""
TIMEOUT = """#!/bin/bash
echo "$*" >> {log}
while [[ $1 != [0-9]* || $1 == 20 ]]; do shift; done
seconds=$1
shift
[[ " $* " == *" {slow} "* ]] && exit 124
exec "$@"
"""


@pytest.fixture
def start(tmp_path):
    """Starts the script in a folder with these tools: by name, what each says and its status; returns also the folder."""

    def executable(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(*arguments, gpu=True, mmdet=True, slow='no_tool', **tools):
        (tmp_path / 'tools/benchmarks').mkdir(parents=True)
        shutil.copy(ROOT / 'tools/first_gpu.sh', tmp_path / 'tools')
        packages = tmp_path / 'packages'
        packages.mkdir()
        places = {name: f'tools/benchmarks/{name}.py' for name in ('losses', *OF_MMDET)}
        for name, place in {**places, 'pytest': 'packages/pytest.py'}.items():
            said, status = tools.get(name, ('', 0))
            (tmp_path / place).write_text(TOOL.format(said=said, status=status))
        if gpu is not None:
            (packages / 'torch/utils').mkdir(parents=True)
            (packages / 'torch/__init__.py').write_text(TORCH.format(gpu=gpu))
            (packages / 'torch/utils/collect_env.py').write_text("print('GPU 0: Some GPU')")
        if mmdet:
            (packages / 'mmdet.py').touch()
        # -S: without what is installed here.
        executable(tmp_path / 'environment/bin/python', f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        executable(tmp_path / 'bin/nvidia-smi', '#!/bin/sh\necho Driver Version: 580\n')
        executable(tmp_path / 'bin/timeout', TIMEOUT.format(log=tmp_path / 'limits', slow=slow))
        done = subprocess.run(
            ['bash', str(tmp_path / 'tools/first_gpu.sh'), *arguments],
            cwd=tmp_path / 'packages',  # not where the script lies
            env={
                'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}',
                'PYTHONPATH': str(packages),
                'VIRTUAL_ENV': str(tmp_path / 'environment'),
            },
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,  # so that a signal for the group is not for these tests
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a command behind `&` ignores
        )
        assert 'Traceback' not in done.stderr, done.stderr
        return done, tmp_path

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_all_parts_leave_one_folder(start):
    done, root = start(pytest=('SKIPPED [1] tests/test_a.py needs mmdet, which is not installed\n9 passed in 2s', 0))
    assert done.returncode == 0, done.stdout + done.stderr
    folder = root / 'work_dirs/first_gpu'
    logs = [f'{name}.log' for name in ('tests', 'benchmark', *OF_MMDET)]
    rows = ['benchmark.csv', 'variants.csv', 'maps.csv', 'training.csv', 'kernel_times.csv', 'cut.csv']
    assert names(folder) == sorted(['machine.txt', 'summary.txt', *logs, *rows])
    machine = (folder / 'machine.txt').read_text()
    assert 'GPU 0: Some GPU' in machine and 'Driver Version: 580' in machine
    summary = (folder / 'summary.txt').read_text()
    assert '9 passed in 2s' in summary and 'tests/test_a.py needs mmdet, which is not installed' in summary
    assert (folder / 'benchmark.log').read_text().startswith('losses --device cuda --minutes')
    assert summary.splitlines()[-1] == 'all is in work_dirs/first_gpu'


def test_a_part_fits_into_9_minutes(start):
    """By the limits that are given to `timeout`: what a tool may take, and how long it may then end."""
    _, root = start()
    limits = [line.split() for line in (root / 'limits').read_text().splitlines()]
    assert len(limits) == 7
    for line in limits:
        kill = int(line[line.index('-k') + 1])
        seconds = int(line[line.index('-k') + 2])
        assert 480 <= seconds and seconds + kill < 540  # those of a part share what is left of one limit
    minutes = next(float(line[line.index('--minutes') + 1]) for line in limits if '--minutes' in line)
    assert 60 * minutes < seconds


@pytest.mark.parametrize(
    ('parts', 'logs'),
    [
        (['1'], ['tests.log']),
        (['2'], ['benchmark.log']),
        (['3'], ['heads.log', 'training.log', 'variants.log']),
        (['4'], ['cut.log', 'kernels.log']),
        (['3', '1'], ['heads.log', 'tests.log', 'training.log', 'variants.log']),
    ],
    ids=['tests', 'benchmark', 'what needs mmdet', 'what needs it too', 'two'],
)
def test_parts_are_chosen(start, parts, logs):
    done, root = start('--out', 'elsewhere', *parts)
    assert done.returncode == 0
    folder = root / 'packages/elsewhere'  # from where it was started
    assert [name for name in names(folder) if name.endswith('.log')] == logs


@pytest.mark.parametrize(
    ('part', 'what'),
    (('3', 'the variants, the heads and the training step'), ('4', 'the kernels, class convolution and loss')),
)
def test_what_needs_mmdet_is_left_out_by_name(start, part, what):
    done, root = start(part, mmdet=False)
    assert done.returncode == 0
    said = f'left out: {what}, because mmdet is not installed'
    assert said in done.stdout and said in (root / 'work_dirs/first_gpu/summary.txt').read_text()
    assert names(root / 'work_dirs/first_gpu') == ['machine.txt', 'summary.txt']


def test_a_failure_does_not_stop_the_others_and_is_in_the_status(start):
    done, root = start(pytest=('FAILED tests/test_a.py::test_it\n1 failed, 8 passed', 1), heads=('', 3))
    assert done.returncode == 1
    summary = (root / 'work_dirs/first_gpu/summary.txt').read_text()
    assert 'FAILED with status 1' in summary and 'FAILED with status 3' in summary
    assert '  FAILED tests/test_a.py::test_it\n  1 failed, 8 passed\n' in summary
    assert (root / 'work_dirs/first_gpu/training.csv').exists()


def test_ctrl_c_stops_all_parts(start):
    done, root = start(pytest=('', 'interrupted()'))
    assert done.returncode == 130
    assert [name for name in names(root / 'work_dirs/first_gpu') if name.endswith('.log')] == ['tests.log']


def test_what_is_not_done_in_its_time_is_a_failure(start):
    done, root = start('1', '2', slow='gpu')
    assert done.returncode == 1
    assert 'NOT DONE in its time' in done.stdout and (root / 'work_dirs/first_gpu/benchmark.csv').exists()


@pytest.mark.parametrize(
    ('arguments', 'gpu', 'said'),
    [
        ([], False, 'torch sees no GPU here'),
        ([], None, 'torch is not installed in'),
        (['5'], True, "what is '5'?"),
        (['--out'], True, '--out needs a folder'),
    ],
    ids=['no GPU', 'no torch', 'no such part', 'no folder'],
)
def test_what_cannot_run_is_said_and_nothing_is_left(start, arguments, gpu, said):
    done, root = start(*arguments, gpu=gpu)
    assert done.returncode == 2 and said in done.stderr
    assert not (root / 'work_dirs').exists() and not (root / 'limits').exists()
