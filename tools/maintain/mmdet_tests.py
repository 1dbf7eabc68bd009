"""Runs mmdet's own tests of its losses, heads and detectors with focal_plugin.override and without, and compares.

    .venv/bin/python -m tools.maintain.mmdet_tests FOLDER

mmdet's wheel carries no tests: FOLDER is a checkout of open-mmlab/mmdetection at the tag of the installed version, which
is what is tested; some of the tests need the package parameterized. Ends with status 1 where a test passes without the
override and not with it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

TESTS = [f'tests/test_models/test_{name}' for name in ('losses', 'dense_heads', 'roi_heads', 'detectors')]


def pytest_configure() -> None:
    """This module is a plugin too: tests of an installed mmdet find the configs of the checkout that they run in."""
    from mmdet.testing import _utils

    _utils._get_config_directory = lambda: str(Path.cwd() / 'configs')


def outcomes(folder: Path, tests: list[str], override: bool) -> dict[str, str]:
    """Each test's outcome: passed, skipped, failure or error."""
    plugins = ['no:cacheprovider', Path(__file__).stem, *['focal_plugin.override'] * override]
    command = [sys.executable, '-m', 'pytest', '-q', '--tb=short', *tests, *(f'-p{plugin}' for plugin in plugins)]
    # The checkout is the working directory, for its tests/data, but not where mmdet is imported from.
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = os.environ | {'PYTHONSAFEPATH': '1', 'PYTHONPATH': os.pathsep.join(path)}
    with tempfile.NamedTemporaryFile(suffix='.xml') as report:
        done = subprocess.run([*command, f'--junitxml={report.name}'], cwd=folder, env=environment, check=False)
        if done.returncode not in (0, 1):
            sys.exit(f'pytest ended with status {done.returncode}')
        cases = ElementTree.parse(report.name).iter('testcase')
        found = {}
        for case in cases:
            # A class in a test's parameters is in its name: test_loss[FusedFocalLoss] is test_loss[FocalLoss].
            name = f'{case.get("classname")}::{case.get("name")}'.replace('Fused', '')
            found[name] = next((child.tag for child in case if child.tag in ('failure', 'error', 'skipped')), 'passed')
        return found


def counts(results: dict[str, str]) -> str:
    return ', '.join(f'{number} {outcome}' for outcome, number in sorted(Counter(results.values()).items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', metavar='FOLDER', type=Path, help='a checkout of mmdet')
    folder = parser.parse_args().folder
    tests = [test for test in TESTS if (folder / test).exists()]
    if not tests:
        sys.exit(f'{folder} has none of {", ".join(TESTS)}: is it a checkout of mmdet?')
    plain, fused = (outcomes(folder, tests, override) for override in (False, True))
    print(f'\nmmdet alone:   {counts(plain)}\nwith override: {counts(fused)}')
    changed = [test for test in plain | fused if plain.get(test) != fused.get(test)]
    for test in changed:
        print(f'{test}: {plain.get(test, "not run")}, with override {fused.get(test, "not run")}')
    if not changed:
        print('the same outcome of every test')
    sys.exit(any(plain.get(test) == 'passed' for test in changed))


if __name__ == '__main__':
    main()
