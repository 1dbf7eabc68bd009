"""When tools/setup_env.sh sets up anew, and what: a stand-in for Python writes down what it is asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT

STAND_IN = """#!/bin/sh
echo "$@" >>"$ASKED"
case "$*" in
  *'pip --version') test -e "$(dirname "$0")/pip" ;;
  '-m venv .venv') touch .venv/bin/pip ;;
  -) echo key ;;
  *' wheel '*)
    while [ "$1" != -w ]; do shift; done
    mkdir -p "$2" && echo whole >"$2/mmcv-2.1.0.whl" ;;
esac
"""
INTERRUPTED_COPY = """#!/bin/sh
for target; do :; done
[ ! -d "$target" ] || target=$target/mmcv-2.1.0.whl
echo half >"$target"
exit 1
"""
LIBRARY = 'focal_plugin/kernels/native/lib_avx2.so'


class Checkout:
    """One whose .venv holds the stand-in."""

    def __init__(self, folder: Path):
        self.folder, self.asked = folder / 'checkout', folder / 'asked'
        python, wheel = self.folder / '.venv/bin/python', folder / 'cache/mmcv-2.1.0-key/mmcv-2.1.0.whl'
        for path in (python, wheel, self.folder / 'tools/here', self.folder / LIBRARY):
            path.parent.mkdir(parents=True)
            path.write_text('one')
        for name in ('tools/setup_env.sh', 'tools/requirements.txt', 'setup.cfg', 'setup.py', 'pyproject.toml'):
            shutil.copy(ROOT / name, self.folder / name)
        python.write_text(STAND_IN)
        python.chmod(0o755)
        (python.parent / 'pip').touch()
        self.variables = {**os.environ, 'ASKED': str(self.asked), 'FOCAL_PLUGIN_CACHE': str(folder / 'cache')}
        self.variables['FOCAL_PLUGIN_PYTHON'] = '.venv/bin/python'
        self.wheel = wheel

    def set_up(self, status: int = 0, **variables: str) -> list[str]:
        """What Python was asked for."""
        self.asked.write_text('')
        command = ['bash', str(self.folder / 'tools/setup_env.sh')]
        done = subprocess.run(command, env=self.variables | variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr
        return self.asked.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path):
    made = Checkout(tmp_path)
    assert any('mmengine==' in asked for asked in made.set_up())
    assert made.set_up() == []
    return made


def rebuilt_by_hand(checkout: Checkout) -> None:
    (checkout.folder / LIBRARY).write_text('another')


def deleted(checkout: Checkout) -> None:
    (checkout.folder / LIBRARY).unlink()


def moved(checkout: Checkout) -> None:
    checkout.folder = checkout.folder.rename(checkout.folder.with_name('elsewhere'))


def changed(checkout: Checkout) -> None:
    (checkout.folder / 'focal_plugin/point.h').write_text('// another')


@pytest.mark.parametrize('event', (rebuilt_by_hand, deleted, moved, changed))
def test_a_library_that_may_be_another_is_built_anew_and_nothing_else(event, checkout):
    event(checkout)
    (asked,) = checkout.set_up()
    assert asked.endswith('pip --disable-pip-version-check install -q --no-deps -e .')
    assert checkout.set_up() == []


def test_an_interrupted_environment_is_made_whole(checkout):
    (checkout.folder / '.venv/bin/pip').unlink()
    (checkout.folder / '.venv/focal_plugin.stamp').unlink()
    assert checkout.set_up()[:2] == ['-m pip --version', '-m venv .venv']


def test_an_interrupted_copy_is_no_wheel(checkout, tmp_path):
    (checkout.folder / '.venv/focal_plugin.stamp').unlink()
    checkout.wheel.unlink()
    copy = tmp_path / 'bin/cp'
    copy.parent.mkdir()
    copy.write_text(INTERRUPTED_COPY)
    copy.chmod(0o755)
    checkout.set_up(status=1, PATH=f'{copy.parent}:{os.environ["PATH"]}')
    assert any(' wheel ' in asked for asked in checkout.set_up())  # it builds anew
    assert checkout.wheel.read_text() == 'whole\n'
