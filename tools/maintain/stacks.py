"""What tools/maintain/stacks.sh runs: the package beside each stack of Python, PyTorch and OpenMMLab's or onedl's packages.

In a throw-away environment the stack is installed as its users install it, then this package's wheel. The columns are what
that changed of the others, whether the package is imported, how many tests pass (tests/floor, from Python 3.10 on those of
the losses and functions too), the loss after two epochs of mmdet's own train script on the boards, and the backend that
serves float32 logits on an NVIDIA GPU. mmcv comes without its compiled ops (mmcv-lite; onedl's from its sources, the ops
left out), which take long to build and are not needed: a module stands in for them that refuses a call.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tools.benchmarks.results import ROOT, STACKS, provenance, table, update
from tools.benchmarks.version_tables import ON_GPU
from tools.maintain.environments import interpreter, last_line

FLOOR = ['tests/floor']
MORE = ['tests/losses', 'tests/test_functional.py', 'tests/test_override.py', 'tests/interop/test_mmdet.py']
MORE += ['tests/interop/test_mmdet_quality.py']
MORE += ['--deselect=tests/losses/test_focal_custom.py::test_box_heads']  # RoIAlign, an op of mmcv's
TRAINED = 'configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py'
MM = ('mmengine==0.10.7', 'mmcv-lite==2.1.0', 'mmdet==3.3.0')
ONEDL = ('onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6', 'onedl-mmdetection==3.5.1', 'imaug==0.4.3')
OF_IMAUG = ('scikit-image', 'imageio')  # which asks for two packages of OpenCV


class Stack(NamedTuple):
    python: str
    torch: str
    host: tuple[str, ...]
    others: tuple[str, ...]


NAMED = {
    'oldest': Stack('3.8', '2.1.2', ('mmengine==0.10.3', *MM[1:]), ('numpy<2', 'setuptools<70')),
    'torch2.4': Stack('3.10', '2.4.1', MM, ('numpy<2', 'setuptools<81')),
    'cpu': Stack('3.11', '2.13.0', MM, ('numpy>=2', 'setuptools<81')),
    'onedl': Stack('3.12', '2.14.1', ONEDL, ('numpy>=2', 'setuptools>=84', *OF_IMAUG)),
}
NO_OPS = """
def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)

    def refuse(*args, **kwargs):
        raise RuntimeError(f'{name}: mmcv was installed without its compiled ops, so there is no implementation for device')

    return refuse
"""
VERSIONS = """
import importlib.metadata, sys
def version(*names):
    for name in names:
        try:
            return f'{name} {importlib.metadata.version(name)}'
        except importlib.metadata.PackageNotFoundError:
            pass
    return ''
host = [version('onedl-mmengine', 'mmengine'), version('onedl-mmcv', 'mmcv-lite'), version('onedl-mmdetection', 'mmdet')]
for each in (', '.join(host), *(version(name) for name in ('numpy', 'setuptools', 'triton'))):
    print(each)
"""
SCRIPT = """
from importlib.util import find_spec
print(find_spec('mmdet').submodule_search_locations[0] + '/.mim/tools/train.py')
"""
SERVES = """
import torch
from types import SimpleNamespace
from focal_plugin import backend
on_gpu = SimpleNamespace(is_cpu=False, is_cuda=True, device=SimpleNamespace(type='cuda'), dtype=torch.float32)
print(backend.choose(on_gpu) if torch.version.cuda else '-')  # a build for CPUs
"""


def unpinned() -> list[str]:
    """The packages that the requirements name without a version of their own: what mmengine, mmcv, mmdet and tests need."""
    lines = (ROOT / 'tools/requirements.txt').read_text().splitlines()
    return [re.match(r'[\w-]+', line)[0] for line in lines if re.match(r'\w', line) and '==' not in line]


class Environment:
    """A virtual environment, and a folder with the tests and configs but without the package.

    Raises:
        LookupError: there is no Python of the stack's version here.

    Attributes:
        python: its interpreter.
        work: the folder.
    """

    def __init__(self, folder: Path, stack: Stack):
        python = interpreter(stack.python)
        if python is None:
            raise LookupError(f'there is no Python {stack.python} here')
        subprocess.run([python, '-m', 'venv', folder / 'env'], check=True)
        self.python, self.work = folder / 'env/bin/python', folder / 'work'
        for name in ('tests', 'tools', 'configs'):
            shutil.copytree(ROOT / name, self.work / name, ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy(ROOT / 'setup.cfg', self.work)
        others = [name for name in unpinned() if name not in ('numpy', 'setuptools')]
        self.install(f'torch=={stack.torch}', *stack.others, *others)
        # As tools/setup_env.sh: mmcv and mmengine ask for opencv-python, which needs the system's libGL.
        sources = folder / 'sources'
        host = [self.without_ops(each, sources) if each.startswith('onedl-mmcv') else each for each in stack.host]
        self.install('--no-deps', '--no-build-isolation', *host)
        place = self.run('-c', 'import importlib.util as u; print(u.find_spec("mmcv").submodule_search_locations[0])')
        ops = Path(last_line(place.stdout))
        if not list(ops.glob('_ext*')):
            (ops / '_ext.py').write_text(NO_OPS)

    def pip(self, *arguments: str) -> None:
        done = self.run('-m', 'pip', '--disable-pip-version-check', *arguments, '-q')
        if done.returncode != 0:
            raise RuntimeError(f'pip {" ".join(arguments)}: {done.stderr}')

    def install(self, *what: str) -> None:
        self.pip('install', *what)

    def without_ops(self, requirement: str, folder: Path) -> str:
        """A folder with the sources of a package whose extensions are left out."""
        self.pip(
            'download', '--no-deps', '--no-build-isolation', '--no-binary', ':all:', '-d', str(folder), requirement
        )
        (archive,) = folder.glob('*.tar.gz')
        shutil.unpack_archive(archive, folder)
        setup = folder / archive.name.removesuffix('.tar.gz') / 'setup.py'
        setup.write_text(setup.read_text().replace('ext_modules=get_extensions()', 'ext_modules=[]'))
        return str(setup.parent)

    def frozen(self) -> set[str]:
        """Everything that is installed."""
        return set(self.run('-m', 'pip', 'list', '--format=freeze').stdout.split())

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """What Python says that sees nothing but the environment."""
        return subprocess.run(
            [self.python, *command], cwd=self.work, capture_output=True, text=True, env=os.environ | {'PYTHONPATH': ''}
        )


def changes(before: set[str], after: set[str]) -> str:
    """What an installation of this package changed of the others."""
    other = sorted(each for each in before ^ after if not each.lower().replace('-', '_').startswith('focal_plugin'))
    return f'changes {", ".join(other)}' if other else 'changes nothing else'


def tested(environment: Environment, stack: Stack) -> str:
    """How many tests pass, and which don't."""
    tests = FLOOR if stack.python in ('3.8', '3.9') else [*FLOOR, *MORE]
    output = environment.run('-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-W', 'ignore', *tests).stdout
    counts = ', '.join(re.findall(r'\d+ (?:passed|failed|skipped|errors?)', last_line(output)))
    failed = re.findall(r'^(?:FAILED|ERROR) \S*::(\S+)', output, re.MULTILINE)
    return f'{counts or last_line(output)}{": " * bool(failed)}{", ".join(failed)}'


def trained(environment: Environment) -> str:
    """The loss at the beginning and at the end of two epochs, or what went wrong."""
    validation = [f'val_{name}=None' for name in ('cfg', 'dataloader', 'evaluator')]  # which needs mmcv's ops
    options = ('train_cfg.max_epochs=2', *validation, 'default_hooks.logger.interval=1')
    script = last_line(environment.run('-c', SCRIPT).stdout)
    done = environment.run(script, TRAINED, '--work-dir', 'work_dir', '--cfg-options', *options)
    losses = re.findall(r'Epoch\(train\).*? loss: ([\d.]+)', done.stdout + done.stderr)
    return f'{losses[0]} to {losses[-1]}' if losses and done.returncode == 0 else last_line(done.stderr)


def seen(name: str, wheel: Path) -> dict[str, str]:
    """The row of a stack."""
    stack = NAMED[name]
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder), stack)
        before = environment.frozen()
        environment.install(str(wheel))
        install = changes(before, environment.frozen())
        host, numpy, setuptools, triton = environment.run('-c', VERSIONS).stdout.splitlines()
        imported = environment.run('-c', 'import focal_plugin; print(focal_plugin.__file__)')
        return {
            'stack': name,
            'python': stack.python,
            'torch': stack.torch,
            'host': host,
            'numpy': numpy.partition(' ')[2],
            'setuptools': setuptools.partition(' ')[2],
            'triton': triton.partition(' ')[2],
            'install': install,
            'import': 'works' if imported.returncode == 0 else last_line(imported.stderr),
            'tests': tested(environment, stack),
            'training': trained(environment),
            ON_GPU: last_line(environment.run('-c', SERVES).stdout),
            'commit': provenance('cpu')['commit'],
        }


def main(names: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', default=list(NAMED), metavar='NAME', help=', '.join(NAMED))
    parser.add_argument('--csv', type=Path, default=STACKS, metavar='FILE', help='default: %(default)s')
    args = parser.parse_args(names)
    if unknown := {*args.names} - {*NAMED}:
        parser.error(f'there is no stack {", ".join(sorted(unknown))}: there are {", ".join(NAMED)}')
    with tempfile.TemporaryDirectory() as built:
        command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', built, ROOT]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(built).glob('*.whl')
        for name in args.names:
            row = seen(name, wheel)
            update(args.csv, [row], key=('stack',))
            print(table([row]), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
