"""The documents: their generated parts are those of the results and specs, and what they point to is there."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from focal_plugin import __version__
from tools.benchmarks import results
from tools.maintain.readme_tables import DOCUMENTS, main, speed

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob('*.md'), *ROOT.glob('configs/**/*.md'), *ROOT.glob('tools/**/*.md')]
pages = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def test_documents_hold_the_committed_results():
    assert main(['--check']) == 0


def test_every_machine_that_measured_many_logits_is_shown(tmp_path, monkeypatch):
    first, *others = results.read(results.BENCHMARK)
    machines = {row['machine'] for row in (first, *others) if row['shape'] == '200000x80' and row['dtype'] == 'float32'}
    assert len(machines) > 1 and all(machine in speed() for machine in machines)
    shown, copy = speed(), tmp_path / 'benchmark.csv'
    results.write(copy, [first, *others, {**first, 'machine': 'of few logits alone', 'shape': '3000x3'}])
    monkeypatch.setattr(results, 'BENCHMARK', copy)
    assert speed() == shown


def test_parts_are_written_between_their_markers(tmp_path, capsys):
    for name, parts in DOCUMENTS.items():
        first, *rest = [f'<!-- {part}:begin -->\nOUT OF DATE\n<!-- {part}:end -->' for part in parts]
        document = tmp_path / name
        document.parent.mkdir(parents=True, exist_ok=True)
        document.write_text('\n'.join(['above', first, 'between', *rest, 'below', '']))
    there = ['--root', str(tmp_path)]
    assert main([*there, '--check']) == 1
    said = capsys.readouterr().out
    assert all(str(tmp_path / name) in said and 'OUT OF DATE' in (tmp_path / name).read_text() for name in DOCUMENTS)
    assert main(there) == 0
    for name in DOCUMENTS:
        text = (tmp_path / name).read_text()
        assert 'OUT OF DATE' not in text and text.startswith('above') and text.endswith('below\n')
        assert '\nbetween\n' in text
    assert main([*there, '--check']) == 0
    (tmp_path / 'README.md').write_text('no markers')
    with pytest.raises(SystemExit, match='must hold <!-- promises:begin -->'):
        main(there)


def test_readme_is_read_in_one_sitting():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 150


def test_sources_are_read_in_one_sitting():
    """As CONTRIBUTING asks; stubs are generated."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in ('focal_plugin', 'tests', 'tools', 'configs')
        for path in (ROOT / folder).rglob('*')
        if path.suffix in ('.py', '.h', '.cpp', '.cu', '.sh')
    }
    assert len(lengths) > 500
    assert {path: length for path, length in lengths.items() if length >= 300} == {}


def anchors(page: Path) -> set[str]:
    """Those that GitHub makes of the headings."""
    headings = re.findall(r'^#+ (.*)$', re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)]+)\)', page.read_text()):
        if not target.startswith('https://'):
            path, _, anchor = target.partition('#')
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


@pages
def test_commands_and_files_that_are_named_exist(page):
    text = page.read_text()
    for module in re.findall(r'python -m ((?:tools|tests|focal_plugin)[\w.]*)', text):
        assert find_spec(module.rstrip('.')), module
    for path in re.findall(r'(?:`|python |bash )((?:tools|tests|configs|focal_plugin)/[\w./-]*\w)', text):
        assert 'foo' in path or (ROOT / path).exists(), path  # foo: what a reader makes


def test_versions_that_are_written_twice_agree():
    assert yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version'] == __version__
    (local,) = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    pins = {pin for hook in local['hooks'] for pin in hook['additional_dependencies']}
    assert {pin.partition('==')[0] for pin in pins} == {'ruff', 'clang-format'}
    assert pins <= set((ROOT / 'tools/requirements.txt').read_text().splitlines())
