"""What is made of the benchmark's rows: the picture of a GPU's, and the tables of the documents."""

import pytest

from tools.benchmarks import results, tables
from tools.plots import benchmark as plot

FUSED, CLONE = 'FusedFocalLoss (triton)', 'clone of the logits'


def made_up(machine='Some GPU', shapes=('2000x80', '500x1'), dtypes=('float32', 'float16')) -> list[dict[str, str]]:
    """Rows of the CSV, each figure another one."""
    cells = [(shape, dtype, name) for shape in shapes for dtype in dtypes for name in ('peer', FUSED, CLONE)]
    return [
        {
            **dict(machine=machine, device='cuda', shape=shape, dtype=dtype, contender=name),
            **dict(forward_ms='', backward_ms='', both_ms=f'{1.5 + n}', gb_per_s=f'{100 + n}', extra_memory='2'),
            **dict(runs='9', torch='2.13.0', triton='3.9.0', commit='abc'),
        }
        for n, (shape, dtype, name) in enumerate(cells)
    ]


def test_bars_and_rates_are_the_rows():
    found = made_up()
    figure = plot.draw(found)
    *bars, rates = figure.axes
    assert [axis.get_title() for axis in bars] == ['logits (2000, 80)', 'logits (500, 1)']
    for axis, shape in zip(bars, ('2000x80', '500x1'), strict=True):
        assert [text.get_text() for text in axis.get_xticklabels()] == ['float32', 'float16']
        drawn = {
            (container.get_label(), round(bar.get_center()[0])): bar.get_height()
            for container in axis.containers
            for bar in container
        }
        assert drawn == {
            (row['contender'], ('float32', 'float16').index(row['dtype'])): float(row['both_ms'])
            for row in found
            if row['shape'] == shape
        }
    points = {collection.get_label(): collection.get_offsets()[:, 1].tolist() for collection in rates.collections}
    for name in ('peer', FUSED, CLONE):
        assert points[name] == [float(row['gb_per_s']) for row in found if row['contender'] == name]


def test_what_the_gpu_worked_is_drawn_where_it_was_profiled():
    row = dict(both_ms='2', gpu_ms='0.5', gb_per_s='100')
    assert (plot.worked(row), plot.rate(row)) == (0.5, 400)
    assert (plot.worked({**row, 'gpu_ms': ''}), plot.rate({**row, 'gpu_ms': ''})) == (2, 100)


def test_roof_is_that_of_the_card_or_of_a_clone():
    for machine, roof in (('NVIDIA H100 80GB HBM3', 3352.0), ('Some GPU', 111.0)):
        rates = plot.draw(made_up(machine)).axes[-1]
        (line,) = rates.get_lines()
        assert set(line.get_ydata()) == {roof}


def test_picture_of_a_csv_is_of_its_gpu(tmp_path):
    path = tmp_path / 'benchmark.csv'
    cpu = [row | {'device': 'cpu', 'machine': 'a CPU'} for row in made_up()]
    results.update(path, cpu, ('machine', 'shape', 'dtype', 'contender'))
    with pytest.raises(SystemExit, match='no rows of a GPU'):
        plot.main([str(path)])
    results.update(path, made_up(), ('machine', 'shape', 'dtype', 'contender'))
    plot.main([str(path)])
    assert (tmp_path / 'gpu.png').read_bytes().startswith(b'\x89PNG')


def test_tables_hold_the_figures_and_the_versions():
    text = tables.benchmark(made_up())
    assert 'Measured on Some GPU (torch 2.13.0, triton 3.9.0, commit abc)' in text
    assert '| (2000, 80) | float16 | 4.5 | 5.5 | 6.5 | 104 |' in text and '| (500, 1) | float32 | 7.5 |' in text
    steps = [
        dict(machine='Some GPU', work='A', precision=precision, contender=name, step_ms=time, extra_mib=memory)
        for precision, name, time, memory in (
            ('fp32', 'x', '9', '70'),
            ('fp32', 'y', '8', ''),
            ('fp16', 'y', '7', '50'),
        )
    ]
    assert tables.training(steps).splitlines()[-2:] == [
        '| fp32 | 9 ms, 70 MiB | 8 ms, ? MiB |',
        '| fp16 | - | 7 ms, 50 MiB |',
    ]
    assert tables.training([]) == ''


def test_tables_tell_the_gpus_work_from_the_time_of_a_step():
    found = made_up()
    assert 'own work' not in tables.benchmark(found)
    for row in found:
        row['gpu_ms'] = (
            '' if row['contender'] == 'peer' and row['shape'] == '500x1' else f'{float(row["both_ms"]) / 10:g}'
        )
    text = tables.benchmark(found)
    assert "Of that the GPU's own work, in milliseconds:" in text
    assert '| (2000, 80) | float16 | 0.45 | 0.55 | 0.65 |' in text and '| (500, 1) | float32 | - |' in text


@pytest.mark.parametrize(('figure', 'said'), ((25344.4, '25340'), (1055.5, '1056'), (0.012378, '0.01238'), (12, '12')))
def test_figures_have_four_digits_and_no_exponent(figure, said):
    assert results.four_digits(figure) == said
