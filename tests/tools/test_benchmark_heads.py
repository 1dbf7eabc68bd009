"""The benchmark of heads: what it times is each head's own code, and the page of results shows all of them."""

import csv
from pathlib import Path

import pytest
import torch

from focal_plugin import heads
from tools.benchmarks.inputs import right_ones

ROOT = Path(__file__).parents[2]
MAPS = ROOT / 'tools/results/maps.csv'
# mmdet's head, and how the benchmark calls it
NAMES = {
    'RetinaHead': 'RetinaNet',
    'ATSSHead': 'ATSS',
    'FCOSHead': 'FCOS',
    'GFLHead': 'GFL',
    'VFNetHead': 'VFNet',
    'RTMDetSepBNHead': 'RTMDet',
    'TOODHead': 'TOOD',
    'DDODHead': 'DDOD',
}
# Their class losses are FCOS's code, and RTMDetSepBNHead's.
LIKE_OTHERS = {'FusedCondInstBboxHead', 'FusedRTMDetHead', 'FusedRTMDetInsHead', 'FusedRTMDetInsSepBNHead'}


@pytest.fixture
def tool(monkeypatch):
    from tools.benchmarks import heads as benchmark_heads

    # Images a quarter as wide: RetinaNet's logits are 31 MB else.
    monkeypatch.setattr(benchmark_heads, 'SIDE', 128)
    monkeypatch.setattr(benchmark_heads, 'SIZES', (16, 8, 4, 2, 1))
    return benchmark_heads


@pytest.mark.sampled(2)
@pytest.mark.parametrize('name', NAMES)
def test_the_contenders_of_a_head_are_its_own_code_and_agree_with_mmdets_loss(tool, name):
    logits, steps = tool.dense_head(tool.HEADS[NAMES[name]], 'cpu')
    assert [contender.split(', ')[0] for contender in steps] == [f'Fused{name}', name, name]
    assert list(steps)[2].startswith(f'{name}, mmdet ')
    *_, exact = steps.values()
    assert all(level.is_contiguous() for level in logits)
    contenders = {name: lambda pred, step=step: step for name, step in steps.items()}
    right, wrong = right_ones([tool.copied(logits, 0)], contenders, exact, tool.TOLERANCE)
    assert list(right) == list(steps) and wrong == 0


def test_a_head_that_copies_is_seen(tool):
    """Bytes, since the table's peak is the process's, which this small tells nothing."""
    from tests.allocations import allocated

    logits, steps = tool.dense_head(tool.HEADS['ATSS'], 'cpu')
    leaves = [each.requires_grad_() for each in logits]
    fused, stock, _ = (
        allocated(lambda step=step: torch.autograd.grad(step(*leaves), leaves)) for step in steps.values()
    )
    assert stock - fused >= 0.9 * sum(4 * each.numel() for each in logits)


def test_page_of_results_measures_all_heads():
    assert {f'Fused{name}' for name in NAMES} == set(heads.__all__) - LIKE_OTHERS
    with MAPS.open(newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['device'] == 'cpu']
    page = (ROOT / 'tools/results/README.md').read_text()
    for name in NAMES:
        of_head = [row for row in rows if row['contender'].split(', ')[0].removeprefix('Fused') == name]
        assert of_head
        for machine in {row['machine'] for row in of_head}:
            fused, with_ours, with_mmdets = (row['contender'] for row in of_head if row['machine'] == machine)
            assert fused == f'Fused{name}' and with_ours.startswith(f'{name}, Fused')
            assert with_mmdets.startswith(f'{name}, mmdet ')
        assert all(f'| {row["contender"]} | {row["both_ms"]} |' in page for row in of_head)
