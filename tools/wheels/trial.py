"""Installs the wheels of dist/ into fresh environments: what pip changes, which backend serves, what a loss gives.

python -m tools.wheels.trial [PYTHON ...]

By default Python 3.8, 3.10 and 3.12, of pyenv or the path. A PYTHON that has torch lends the fresh environment its packages;
else torch is installed: that of tools/requirements.txt, on Python 3.8 the last that mmcv has a wheel for.
"""

from __future__ import annotations
import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.maintain.environments import interpreter

ROOT = Path(__file__).parents[2]
VERSIONS = ('3.8', '3.10', '3.12')
OLDEST_TORCH = ('torch==2.1.2', 'numpy<2')
LENT = "import sysconfig; print(sysconfig.get_path('purelib')); import torch"
# Runs in the fresh environment: prints the backend, the library, and errors relative to the formula in float64.
LOSS = """
import torch
from pathlib import Path
from focal_plugin import backend, config_dir, functional
from focal_plugin.kernels.native import loader

assert (Path(config_dir()) / '_base_/focal_plugin.py').is_file()
x = torch.linspace(-8, 8, 900).view(300, 3).requires_grad_()
target = torch.arange(300) % 4
loss = functional.sigmoid_focal_loss(x, target, gamma=2.0, alpha=0.25, reduction='sum')
loss.backward()
exact = x.detach().double().requires_grad_()
y = torch.nn.functional.one_hot(target, 4)[:, :3].double()
p = exact.sigmoid()
pt, at = y * p + (1 - y) * (1 - p), y * 0.25 + (1 - y) * 0.75
formula = (-at * (1 - pt) ** 2 * pt.log()).sum()
formula.backward()
value = abs(float(loss) / float(formula) - 1)
gradient = float((x.grad / exact.grad - 1).abs().max())
assert value < 1e-5 and gradient < 1e-5, (value, gradient)
library = loader.path() and loader.path().name
said = f'torch {torch.__version__}: {backend.choose(x)} backend, {library}'
print(f'{said}, loss off by {value:.1e}, gradient by {gradient:.1e}')
"""


def output(*command) -> str:
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(list(map(str, command)), env=environment, cwd='/', capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{" ".join(map(str, command[:4]))} failed:\n{done.stdout}{done.stderr}')
    return done.stdout


def environment(python: str, folder: Path) -> Path:
    """A fresh environment with torch, and its Python."""
    output(python, '-m', 'venv', folder)
    fresh = folder / 'bin/python'
    packages = Path(output(fresh, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    lends = subprocess.run([python, '-c', LENT], capture_output=True, text=True)
    if lends.returncode == 0:
        output(fresh, '-m', 'pip', 'uninstall', '-q', '-y', 'setuptools')  # an older one would hide the lent one
        lent = folder / 'lent'
        lent.mkdir()
        for path in Path(lends.stdout.split()[0]).iterdir():
            if 'focal_plugin' not in path.name and not path.name.startswith(('pip', '__pycache__')):
                (lent / path.name).symlink_to(path)
        (packages / 'lent.pth').write_text(f"import site; site.addsitedir('{lent}')\n")
        return fresh
    lines = (ROOT / 'tools/requirements.txt').read_text().splitlines()
    is_old = output(fresh, '-c', 'import sys; print(sys.version_info < (3, 10))').strip() == 'True'
    torch = OLDEST_TORCH if is_old else [line for line in lines if line.startswith('torch==')]
    output(fresh, '-m', 'pip', 'install', '-q', *torch)
    return fresh


def packages_of(fresh: Path) -> set[str]:
    listed = json.loads(output(fresh, '-m', 'pip', '--disable-pip-version-check', 'list', '--format=json'))
    return {f'{each["name"]}=={each["version"]}' for each in listed}


def attempt(fresh: Path, wheels: list[Path], report: Path) -> str:
    """Lets pip choose among wheels; what it installed, and what the loss gave."""
    before = packages_of(fresh)
    links = report.parent / 'links'
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir()
    for wheel in wheels:
        (links / wheel.name).symlink_to(wheel)
    pip = (fresh, '-m', 'pip', '--disable-pip-version-check')
    output(*pip, 'install', '-q', '--no-index', '--find-links', links, '--report', report, 'focal_plugin')
    installed = [Path(each['download_info']['url']).name for each in json.loads(report.read_text())['install']]
    after = packages_of(fresh)
    if before - after or {each.partition('==')[0].replace('-', '_') for each in after - before} != {'focal_plugin'}:
        raise SystemExit(f'pip changed other packages: {sorted(before ^ after)}')
    said = output(fresh, '-W', 'ignore', '-c', LOSS).strip().splitlines()[-1]
    output(*pip, 'uninstall', '-q', '-y', 'focal_plugin')
    return f'{", ".join(installed)} beside {len(before)} packages, none changed\n    {said}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pythons', nargs='*', metavar='PYTHON', help='interpreters (default: 3.8, 3.10, 3.12)')
    named = parser.parse_args().pythons
    pythons = named or [interpreter(version) or f'python{version}' for version in VERSIONS]
    missing = [python for python in pythons if shutil.which(python) is None]
    if missing and (named or missing == pythons):
        raise SystemExit(f'{", ".join(missing)}: not here, so nothing was tried')
    wheels = sorted((ROOT / 'dist').glob('*.whl'))
    if not wheels:
        raise SystemExit('dist holds no wheel: bash tools/build_wheels.sh builds them')
    for python in pythons:
        if python in missing:
            print(f'{python}: skipped, it is not here', flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            print(output(python, '--version').strip(), flush=True)
            fresh = environment(python, Path(folder) / 'environment')
            for choice in (wheels, [wheel for wheel in wheels if wheel.stem.endswith('-any')]):
                print('  ' + attempt(fresh, choice, Path(folder) / 'report.json'), flush=True)


if __name__ == '__main__':
    main()
