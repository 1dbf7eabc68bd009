"""Takes a training step of each config in configs/hosts, in a throw-away environment that has OpenMMLab's other codebases.

python -m tools.maintain.hosts puts them on top of the environment that it runs in, and writes tools/results/hosts.csv: how
far each loss, and the gradient of all weights, is from those of the stock class. A CPU is enough. Ends with status 1 where
a step fails, or a loss or a gradient is further off than rounding. With --run it runs another module there instead.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tools.benchmarks.results import HOSTS, ROOT, provenance, table, update

CONFIGS = sorted((ROOT / 'configs/hosts').glob('*/*.py'))
PACKAGES = ('mmyolo==0.6.0', 'mmsegmentation==1.2.2', 'mmdet3d==1.4.0', 'mmrotate==1.0.0rc1')
IMPORTED = ('ftfy', 'regex', 'prettytable', 'wcwidth')  # by them, in one training step
ENVIRONMENT = os.environ | {'PYTHONPATH': str(ROOT)}
# float32 losses of the codebases' own formulas are exact to 1e-5 at best, and gradients go through all of a model.
BOUNDS = {'losses apart': 1e-5, 'gradients apart': 1e-4}


def set_up(folder: Path) -> Path:
    """The Python of a new environment that sees this one's packages, and has the codebases without what they require."""
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    python = folder / 'bin/python'
    site = Path(
        subprocess.check_output(
            [python, '-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])'], text=True
        ).strip()
    )
    (site / 'below.pth').write_text(sysconfig.get_paths()['purelib'])
    subprocess.run([python, '-m', 'pip', 'install', '-q', '--no-deps', *PACKAGES, *IMPORTED], check=True)
    for path in site.glob('mm*/__init__.py'):
        path.write_text(without_newest(path.read_text()))
    return python


def without_newest(text: str) -> str:
    """A codebase's __init__ that takes versions of mmcv and mmdet newer than those which it knew."""
    return re.sub(r"^(\w+_maximum_version) = '.*'", r"\1 = '99.0.0'", text, flags=re.MULTILINE)


def row(python: Path, config: Path) -> dict[str, str]:
    """What the step of a config gave; without a gradient where it failed."""
    done = subprocess.run(
        [python, '-m', 'tools.maintain.host_step', config],
        env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        found = {'host': config.parent.name, 'config': config.stem, 'failed': last}
    else:
        found = json.loads(done.stdout.splitlines()[-1])
    found |= {'python': platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in ('mmcv', 'mmdet', 'mmengine')}
    return found | {key: value for key, value in provenance('cpu').items() if key in ('torch', 'commit')}


def is_right(found: dict[str, str]) -> bool:
    return all(float(found.get(name, 'inf')) <= bound for name, bound in BOUNDS.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=HOSTS, help='the CSV that gets the rows')
    parser.add_argument(
        '--run', nargs=argparse.REMAINDER, help='a module to run there, and its arguments', metavar='MODULE'
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = set_up(Path(folder))
        if args.run:
            sys.exit(subprocess.run([python, '-m', *args.run], env=ENVIRONMENT, cwd=ROOT, check=False).returncode)
        rows = [row(python, config) for config in CONFIGS]
    update(args.out, rows, ('host', 'config'))
    print(table(rows))
    if not all(map(is_right, rows)):
        sys.exit('a step failed, or is further from the stock class than rounding')


if __name__ == '__main__':
    main()
