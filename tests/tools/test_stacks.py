"""tools/maintain/stacks.py: what it makes of what its environments say, and the table of what was seen."""

import subprocess

import pytest

from tools.benchmarks import results
from tools.maintain import stacks


class Said:
    """An environment that is not made, in which every command says the same."""

    def __init__(self, stdout: str, stderr: str = '', returncode: int = 0):
        self.commands = []
        self._said = subprocess.CompletedProcess([], returncode, stdout, stderr)

    def run(self, *command):
        self.commands.append(command)
        return self._said


@pytest.mark.parametrize(
    ('after', 'found'),
    [
        ({'torch==2.1.2', 'numpy==1.24.4', 'focal-plugin==0.1.0'}, 'changes nothing else'),
        ({'torch==2.1.2', 'numpy==1.24.4', 'focal_plugin==0.1.0', 'triton==2.1.0'}, 'changes triton==2.1.0'),
        ({'torch==2.15.0', 'numpy==1.24.4', 'focal_plugin==0.1.0'}, 'changes torch==2.1.2, torch==2.15.0'),
    ],
    ids=['nothing', 'another package comes', 'another version of one'],
)
def test_an_installation_that_changes_other_packages_is_told(after, found):
    assert stacks.changes({'torch==2.1.2', 'numpy==1.24.4'}, after) == found


@pytest.mark.parametrize(
    ('said', 'found'),
    [
        ('14 passed, 2 skipped in 3 s', '14 passed, 2 skipped'),
        ('FAILED tests/a.py::test_b[c-d] - x\n1 failed, 13 passed in 3 s', '1 failed, 13 passed: test_b[c-d]'),
        ('ModuleNotFoundError: mmdet', 'ModuleNotFoundError: mmdet'),
    ],
    ids=['all pass', 'one fails', 'pytest does not start'],
)
def test_the_tests_that_fail_are_named(said, found):
    assert stacks.tested(Said(said), stacks.NAMED['oldest']) == found


def test_python_38_is_asked_what_is_made_for_it():
    asked = {}
    for name in ('oldest', 'onedl'):
        environment = Said('1 passed in 1 s')
        stacks.tested(environment, stacks.NAMED[name])
        asked[name] = {each for each in environment.commands[0] if each.startswith('tests/')}
    assert asked['oldest'] == {'tests/floor'} < asked['onedl']


@pytest.mark.parametrize(
    ('environment', 'found'),
    [
        (
            Said('Epoch(train) [1][1/30]  loss: 2.10\nEpoch(train) [2][30/30]  loss: 1.38  loss_cls: 0.5'),
            '2.10 to 1.38',
        ),
        (Said('Epoch(train) [1][1/30] loss: 2.10', 'KeyError: no mmdet', 1), 'KeyError: no mmdet'),
    ],
    ids=['trained', 'ended early'],
)
def test_training_is_its_first_and_last_loss_or_its_error(environment, found):
    assert stacks.trained(environment) == found


def test_a_python_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LookupError, match=r'no Python 9\.9'):
        stacks.Environment(tmp_path, stacks.NAMED['cpu']._replace(python='9.9'))


def test_an_unknown_stack_is_refused(capsys):
    with pytest.raises(SystemExit):
        stacks.main(['oldst'])
    assert 'there is no stack oldst: there are oldest, ' in capsys.readouterr().err


@pytest.mark.parametrize('row', results.read(results.STACKS), ids=lambda row: row['stack'])
def test_a_stack_of_the_committed_table_works(row):
    """It was seen to install without a change to the others, to be imported, to pass its tests and to learn."""
    assert row['stack'] in stacks.NAMED
    assert (row['install'], row['import']) == ('changes nothing else', 'works')
    assert 'passed' in row['tests'] and 'failed' not in row['tests']
    first, last = map(float, row['training'].split(' to '))
    assert last < first
    assert row['on an NVIDIA GPU'] in (('-',) if row['stack'] == 'cpu' else ('triton', 'cuda'))
