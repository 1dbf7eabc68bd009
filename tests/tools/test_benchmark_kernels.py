"""The benchmark of the kernels of GPUs, as far as it can be told without one, and its table."""

import csv

import pytest

from tools.benchmarks import kernel_tables
from tools.benchmarks.measure import run_all

SHAPE = ['--shape', '640x8']


@pytest.fixture
def tool(monkeypatch):
    """The benchmark on a CPU, every run of which takes a GPU 2 ms."""
    from tools.benchmarks import kernels, options

    monkeypatch.setattr(kernels, 'DEVICE', 'cpu')
    monkeypatch.setattr(kernels, 'busy', lambda runs: 2.0 * (run_all(runs) > 0))
    monkeypatch.setattr(options, 'parse', lambda parser, arguments: parser.parse_args(arguments))
    forced = kernels.focal_plugin.use_backend
    monkeypatch.setattr(kernels.focal_plugin, 'use_backend', lambda name: forced('torch'))
    return kernels


def rows_of(path) -> list[dict]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ('variant', 'forward', 'backward'),
    (
        # A clone moves 2 x 20480 bytes; the logits are read with a label of 8 and a weight of 4 bytes a row.
        ('focal', (20480 + 640 * 12) / 40960, (2 * 20480 + 640 * 12) / 40960),
        ('gaussian_focal', 2 * 20480 / 40960, 3 * 20480 / 40960),  # dense targets, no weight
        ('quality_focal', (20480 + 640 * 16) / 40960, (2 * 20480 + 640 * 16) / 40960),  # and a score of 4
    ),
)
def test_a_share_is_the_bytes_that_a_pass_moves_beside_those_of_a_clone(tool, tmp_path, variant, forward, backward):
    out = tmp_path / 'times.csv'
    assert tool.main([*SHAPE, '--variants', variant, '--dtypes', 'float32', '--out', str(out)]) == 0
    rows = rows_of(out)
    assert [row['backend'] for row in rows] == ['triton', 'cuda']
    for row in rows:
        assert (row['forward_ms'], row['backward_ms']) == ('2', '2')
        assert (row['forward_share'], row['backward_share']) == (f'{forward:.2f}', f'{backward:.2f}')


@pytest.mark.slow
def test_every_variant_is_timed_in_half_precision_too(tool, tmp_path):
    out = tmp_path / 'times.csv'
    assert tool.main([*SHAPE, '--backends', 'cuda', '--dtypes', 'bfloat16', '--out', str(out)]) == 0
    assert len(rows_of(out)) == len(tool.SPECS)


def test_a_wrong_variant_is_not_timed(tool, tmp_path, monkeypatch, capsys):
    exact = tool.exact
    monkeypatch.setattr(tool, 'exact', lambda spec, loss: lambda *given: 1.01 * exact(spec, loss)(*given))
    out = tmp_path / 'times.csv'
    assert tool.main([*SHAPE, '--variants', 'focal', '--dtypes', 'float32', '--out', str(out)]) == 1
    assert 'NOT TIMED: focal, cuda, float32: its value is' in capsys.readouterr().out and not out.exists()


def test_a_cpu_is_refused(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(['--device', 'cpu'])
    assert 'times the kernels of GPUs' in capsys.readouterr().err


def test_the_table_has_measured_and_predicted_shares():
    key = dict(machine='NVIDIA H100 80GB HBM3', shape='100x80', backend='cuda', torch='2', commit='c')
    times = dict(forward_ms='1.5', backward_ms='2.5', forward_share='0.75', backward_share='1.00')
    rows = [{**key, **times, 'variant': 'focal', 'dtype': dtype} for dtype in ('bfloat16', 'float32')]
    predicted = dict(card='H100 SXM', classes='80', backend='cuda', dtype='bf16', kernel='focal_fwd')
    report = [{**predicted, kernel_tables.SHARE: '0.86'}]
    table = kernel_tables.measured(rows, report)
    assert '| focal | 1.5 ms, 0.75 (0.86) | 2.5 ms, 1.00 (-) | 1.5 ms, 0.75 (-) | 2.5 ms, 1.00 (-) |' in table
    assert table.startswith('The cuda backend, measured on NVIDIA H100 80GB HBM3 (torch 2, commit c), (100, 80):')
