"""The wheels: their tags, what is in them, how they are built, and the workflow that publishes them."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# In place of a compiler: writes an empty file for each output.
COMPILER = """#!/bin/sh
while [ $# -gt 0 ]; do
  [ "$1" = -o ] && : >"$2"
  shift
done
"""
WORKFLOW = ROOT / '.github/workflows/wheels.yml'
COPIED = (
    '.github',
    'configs',
    'focal_plugin',
    'tests',
    'tools',
    '*.py',
    '*.cfg',
    '*.toml',
    '*.in',
    '*.md',
    'LICENSE',
    '*.cff',
)


def wheel(folder: Path, compiler, platform: str) -> tuple[str, list[str]]:
    """The name of the wheel that a compiler builds for a platform, and the files in it."""
    pytest.importorskip('setuptools.command.bdist_wheel')
    command = [
        'egg_info',
        '-e',
        folder,
        'build',
        '-b',
        folder / 'build',
        'bdist_wheel',
        '-b',
        folder / 'wheel',
        '-d',
        folder,
    ]
    environment = os.environ | {'CC': str(compiler), 'CXX': str(compiler), '_PYTHON_HOST_PLATFORM': platform}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', 'setup.py', '-q', *map(str, command)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    (path,) = folder.glob('*.whl')
    return path.name, zipfile.ZipFile(path).namelist()


def libraries(files: list[str]) -> set[str]:
    return {name.rpartition('/')[2] for name in files if re.search(r'\.(so|dylib|dll|pyd)$', name)}


@pytest.mark.parametrize(
    ('platform', 'tag', 'expected'),
    [
        ('linux-x86_64', 'linux_x86_64', {'lib_avx2.so', 'lib_avx512.so', 'lib_baseline.so'}),
        ('linux-aarch64', 'linux_aarch64', {'lib_baseline.so'}),
    ],
)
def test_one_wheel_of_a_platform_serves_every_python(tmp_path, platform, tag, expected):
    compiler = tmp_path / 'compiler'
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    name, files = wheel(tmp_path, compiler, platform)
    assert name.endswith(f'-py3-none-{tag}.whl') and libraries(files) == expected
    # The cuda backend compiles its sources on the user's machine; the configs are data of the package.
    for each in (
        'kernels/cuda/elementwise.cu', 'math/focal.h', 'py.typed', 'functional.pyi', 'configs/_base_/focal_plugin.py',
    ):  # fmt: skip
        assert f'focal_plugin/{each}' in files
    assert not [file for file in files if file.startswith(('tests', 'tools', 'configs'))]


def test_without_a_compiler_a_wheel_is_one_for_every_platform(tmp_path):
    name, files = wheel(tmp_path, 'false', 'linux-x86_64')
    assert name.endswith('-py3-none-any.whl') and libraries(files) == set()
    assert 'focal_plugin/kernels/native/loader.py' in files


def test_an_environment_to_develop_in_wants_its_libraries(tmp_path):
    """Its install would go on with those of before, and the tests pass on them."""
    compiler = dict(CC='false', CXX='false', FOCAL_PLUGIN_NATIVE='required')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', 'setup.py', '-q', 'build_ext', '-b', str(tmp_path), '-t', str(tmp_path)],
        cwd=ROOT, env=os.environ | compiler, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0 and 'false' in done.stderr, done.stderr[-4000:]
    assert 'FOCAL_PLUGIN_NATIVE=required pip install' in (ROOT / 'tools/setup_env.sh').read_text()


def test_windows_builds_nothing_and_says_so():
    code = """
import sys, setuptools, setuptools.command.bdist_wheel, setuptools.command.build_ext
sys.platform = 'win32'
setuptools.setup = lambda ext_modules, **rest: print(ext_modules)
import setup
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == '[]' and 'on Windows PyTorch serves' in done.stderr


def test_the_workflow_publishes_on_a_tag_what_has_passed_everywhere():
    text = WORKFLOW.read_text()
    jobs = yaml.safe_load(text)['jobs']
    publish = jobs['publish']
    assert set(publish['needs']) == jobs.keys() - {'publish'}
    assert publish['if'] == "startsWith(github.ref, 'refs/tags/v')" and publish['permissions'] == {'id-token': 'write'}
    used = [step['uses'] for job in jobs.values() for step in job['steps'] if 'uses' in step]
    assert used and all(re.fullmatch(r'[\w-]+/[\w-]+@v\d+\.\d+\.\d+', each) for each in used)
    assert '://' not in text
    named = set(re.findall(r'(?<!\S)(?:tests|tools)/\S+', text))
    assert {'tools/build_wheels.sh', 'tools/test.sh', 'tests/floor', 'tests/kernels/test_accuracy.py'} <= named
    assert all((ROOT / path).exists() for path in named)


def test_a_python_that_is_named_must_be_there_to_try_it():
    command = [sys.executable, '-m', 'tools.wheels.trial', sys.executable, 'python9.9']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip() == 'python9.9: not here, so nothing was tried'


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> Path:
    """A copy of the repository in which the wheels are built."""
    copy = tmp_path_factory.mktemp('wheels') / 'copy'
    copy.mkdir()
    leave = shutil.ignore_patterns('*.so', '__pycache__', 'data', 'results')
    for path in (path for pattern in COPIED for path in ROOT.glob(pattern)):
        shutil.copytree(path, copy / path.name, ignore=leave) if path.is_dir() else shutil.copy(path, copy)
    done = start(copy, 'tools/build_wheels.sh', '--no-trial')
    if 'No matching distribution found' in done.stderr:
        pytest.skip('pip finds no Zig, which compiles the wheels')
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return copy


def start(copy: Path, *command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {'FOCAL_PLUGIN_PYTHON': sys.executable}
    environment.pop('PYTEST_ADDOPTS', None)
    return subprocess.run(['bash', *command], cwd=copy, env=environment, capture_output=True, text=True, timeout=3600)


@pytest.mark.slow
def test_the_wheels_are_built_for_glibc_2_17(built):
    names = {re.sub(r'^focal_plugin-[\d.]+?(-|\.tar)', r'\1', path.name) for path in (built / 'dist').iterdir()}
    platforms = (*(f'manylinux2014_{each}.manylinux_2_17_{each}' for each in ('x86_64', 'aarch64')), 'any')
    assert names == {'.tar.gz', *(f'-py3-none-{platform}.whl' for platform in platforms)}


@pytest.mark.slow
def test_the_source_distribution_holds_the_package_alone(built):
    (path,) = (built / 'dist').glob('*.tar.gz')
    names = {name.partition('/')[2] for name in tarfile.open(path).getnames()}
    assert {'setup.py', 'pyproject.toml', 'focal_plugin/kernels/native/variant.cpp', 'configs/README.md'} <= names
    assert not [name for name in names if name.startswith(('tests', 'tools')) or name.endswith('.so')]


@pytest.mark.slow
def test_pip_takes_the_wheel_of_the_platform_and_changes_nothing_else(built):
    """Into a fresh environment that this one's packages are lent to; then the wheel for every platform."""
    done = start(built, '-c', f'"{sys.executable}" -m tools.wheels.trial "{sys.executable}"')
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count('none changed') == 2
    assert re.search(r'manylinux_2_17_\w+.whl .*\n.* native backend, lib_\w+.so, loss off by', done.stdout)
    assert re.search(r'none-any.whl .*\n.* torch backend, None, loss off by', done.stdout)


@pytest.mark.slow
def test_the_aarch64_libraries_give_what_the_oracle_says(built):
    done = start(built, 'tools/wheels/aarch64.sh')
    if 'skipped: ' in done.stdout.splitlines()[0]:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) > 600  # of every variant
