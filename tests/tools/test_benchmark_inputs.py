"""Every benchmark on a GPU runs over inputs that its cache does not hold; told without a GPU."""

import importlib
import types
from pathlib import Path

import mmdet  # noqa: F401  the benchmarks of variants and heads are beside it
import pytest
import torch

from focal_plugin.math import SPECS

ROOT = Path(__file__).parents[2]
LOGITS = [torch.randn(2, 40, 8, 8), torch.randn(2, 40, 4, 4)]


@pytest.fixture
def tool():
    """Imports a module of the tools."""
    return importlib.import_module


MAKERS = {
    'losses': lambda tool: lambda seed: tool('tools.benchmarks.inputs').detector(100, 16, torch.float32, 'cpu', seed),
    'a variant': lambda tool: (
        lambda seed: tool('tools.benchmarks.variants').inputs_of(SPECS['quality_focal'], 100, 16, 'cpu', seed)
    ),
    'a head': lambda tool: lambda seed: tool('tools.benchmarks.heads').copied(LOGITS, seed),
}


@pytest.mark.parametrize('kind', MAKERS)
def test_sets_together_are_four_times_the_cache_each_in_memory_of_its_own(tool, kind, monkeypatch):
    cases, make = tool('tools.benchmarks.inputs'), MAKERS[kind](tool)
    size = make(0).bytes
    monkeypatch.setattr(cases, 'CACHE', 0)
    properties = types.SimpleNamespace(L2_cache_size=2 * size)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: properties)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (1000 * size, 1000 * size))
    found = cases.sets(make, 'cuda')
    assert len(found) == 8 and sum(each.bytes for each in found) == 4 * properties.L2_cache_size
    leaves = [each.logits for each in found]
    assert len({leaf.data_ptr() for each in leaves for leaf in each}) == 8 * len(leaves[0])
    assert all(leaf.requires_grad for each in leaves for leaf in each)
    assert len(cases.sets(make, 'cpu')) == 1


@pytest.fixture
def handed(tool, monkeypatch):
    """The inputs that are measured, three sets of each."""
    seen, compare = [], tool('tools.benchmarks.compare')
    measure = compare.measure

    def noted(inputs, *args):
        seen.append(inputs)
        return measure(inputs, *args)

    monkeypatch.setattr(compare, 'sets', lambda make, device: [make(seed) for seed in range(3)])
    monkeypatch.setattr(compare, 'measure', noted)
    return seen


def test_variants_are_timed_on_all_sets(tool, handed, tmp_path):
    variants = tool('tools.benchmarks.variants')
    arguments = ['--shape', '50x3', '--variants', 'quality_focal', '--rounds', '1', '--out', str(tmp_path / 'a.csv')]
    assert variants.main(arguments) == 0
    (inputs,) = handed
    assert len({each.logits[0].data_ptr() for each in inputs}) == 3
    assert tool('tools.benchmarks.results').read(tmp_path / 'a.csv')[0]['graph_ms'] == ''  # no GPU, no graph


def test_a_variant_that_is_wrong_on_a_later_set_is_not_timed(tool, handed, tmp_path, monkeypatch, capsys):
    variants = tool('tools.benchmarks.variants')
    right = tool('tools.benchmarks.inputs').problem
    held = []

    def problem(*results):
        held.append(results)
        return 'it is wrong here' if len(held) == 3 else right(*results)

    monkeypatch.setattr('tools.benchmarks.inputs.problem', problem)
    arguments = ['--shape', '50x3', '--variants', 'quality_focal', '--rounds', '1', '--out', str(tmp_path / 'a.csv')]
    assert variants.main(arguments) == 1 and not (tmp_path / 'a.csv').read_text().strip()
    assert 'NOT TIMED: FusedQualityFocalLoss: it is wrong here' in capsys.readouterr().out


def test_heads_are_timed_on_all_sets(tool, handed, tmp_path, monkeypatch):
    heads = tool('tools.benchmarks.heads')
    labels = torch.randint(0, 2, (100,))
    steps = {'mmdet': lambda pred: heads.FocalLoss()(pred, labels, avg_factor=9.0)}
    monkeypatch.setattr(heads, 'WORKS', {'masks': lambda device: ([torch.randn(100, 1)], steps)})
    monkeypatch.setattr(heads, 'TURN', 1)
    assert heads.main(['--rounds', '1', '--out', str(tmp_path / 'maps.csv')]) == 0
    (inputs,) = handed
    assert len({each.logits[0].data_ptr() for each in inputs}) == 3
    assert [row['contender'] for row in tool('tools.benchmarks.results').read(tmp_path / 'maps.csv')] == ['mmdet']
