"""What tools/benchmarks/losses.py does on a GPU, as far as it can be told without one."""

import contextlib
import csv
import importlib
import itertools
import types
from pathlib import Path

import mmcv.ops
import pytest
import torch
from mmengine.logging import MMLogger

from tests.heads import detectors
from tests.interop import mmcv_kernel

ROOT = Path(__file__).parents[2]
FUSED, NATIVE, CLONE = 'FusedFocalLoss (triton)', 'FusedFocalLoss (native)', 'clone of the logits'


@pytest.fixture
def tool():
    """Imports a module of the tools."""
    return importlib.import_module


@pytest.fixture
def entered(tool, monkeypatch):
    """Enters a loss as a contender."""
    contenders = tool('tools.benchmarks.contenders')

    def enter(name, loss):
        monkeypatch.setitem(contenders.CONTENDERS, name, lambda pred: loss)
        return name

    return enter


def rows(path: Path) -> list[dict]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def cases(tool, count: int, shape=(50, 3), dtype=torch.float32) -> list:
    return [tool('tools.benchmarks.inputs').detector(*shape, dtype, 'cpu', seed) for seed in range(count)]


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


# Inputs


def test_each_run_takes_the_next_inputs_and_finds_only_others_gradients(tool):
    inputs = cases(tool, 3)
    places = {each.logits[0].data_ptr(): place for place, each in enumerate(inputs)}
    seen, held = [], []

    def loss(pred, labels, weight, avg_factor):
        assert labels is inputs[places[pred.data_ptr()]].rest[0] and pred.grad is None
        seen.append(places[pred.data_ptr()])
        held.append(sum(each.gradients != [None] for each in inputs))
        return pred.sum()

    found, _ = tool('tools.benchmarks.compare').measure(inputs, {'loss': loss}, 3, 'cpu', turn=1e9)  # 200 runs at most
    after_clone = [b for a, b in itertools.pairwise(seen) if b != (a + 1) % 3]
    assert set(seen) == {0, 1, 2} and len(after_clone) <= 3  # the clone's turns come between those of the loss
    assert held[3:] == [2] * len(held[3:])
    assert found['runs'] == len(seen) - 1  # the first one tells how long one takes
    assert all(each.gradients == [None] for each in inputs)


def test_the_memory_of_a_run_is_measured_where_no_gradient_is_held(tool, monkeypatch):
    """One that the run frees would hide its own."""
    compare, inputs, held = tool('tools.benchmarks.compare'), cases(tool, 2), []
    monkeypatch.setattr(compare, 'MEMORY_FROM', {'cpu': 0})
    monkeypatch.setattr(
        compare, 'peak_bytes', lambda device, run: held.extend(each.gradients for each in inputs) or run()
    )
    compare.measure(inputs, {name: lambda pred, *rest: pred.sum() for name in 'ab'}, 1, 'cpu')
    assert held == [[None]] * 6  # two losses and a clone, on two sets


def test_inputs_make_four_times_the_cache(tool):
    needed = tool('tools.benchmarks.inputs').sets_needed
    mega = 2**20
    assert needed(61 * mega, cache=126 * mega, free=80_000 * mega) == 9
    assert needed(61 * mega, cache=4 * mega, free=80_000 * mega) == 5  # what torch does not count as L2 has 256 MiB
    assert needed(600 * mega, cache=50 * mega, free=80_000 * mega) == 1
    assert needed(1000, cache=50 * mega, free=80_000 * mega) == 64
    assert needed(100 * mega, cache=126 * mega, free=2400 * mega) == 3
    assert needed(2000 * mega, cache=50 * mega, free=100 * mega) == 1


def test_one_class_is_a_mask_with_half_of_its_pixels_positive(tool):
    (detector,), (mask,) = cases(tool, 1, (5000, 80)), cases(tool, 1, (5000, 1))
    (labels, _, avg_factor), (pixels, _, all_pixels) = detector.rest, mask.rest
    assert (labels < 80).sum() == 10 == avg_factor
    assert 2300 < (pixels == 0).sum() < 2700 and pixels.max() == 1 and all_pixels == 5000
    assert detector.logits[0].mean() < -3.9 and mask.logits[0].mean().abs() < 0.1


def test_bytes_moved_are_those_of_all_tensors(tool):
    (case,) = cases(tool, 1, (50, 3), torch.bfloat16)
    read = sum(t.numel() * t.element_size() for t in (*case.logits, *case.rest[:2]))
    assert case.moved == 2 * read + case.logits[0].numel() * 2


# Correctness first


@pytest.mark.parametrize('shape', [(40000, 20), (20000, 1)], ids=['detector', 'mask'])
def test_float16_gradients_are_large_enough_to_be_judged(tool, shape):
    """Those of a mean would be 0 for most negatives, whatever the loss."""
    (case,) = cases(tool, 1, shape, torch.float16)
    contenders, (pred,), labels = tool('tools.benchmarks.contenders'), case.logits, case.rest[0]
    _, (gradient,) = case.result(contenders.fused('native', pred))
    _, (exact,) = case.double().result(contenders.formula)
    torch.testing.assert_close(gradient.double(), exact, rtol=2**-9, atol=1e-7)
    assert (gradient[(labels > 0)[:, None] & (pred > -5)] != 0).all()


@pytest.mark.parametrize('shape', [(4000, 80), (20000, 1)], ids=['detector', 'mask'])
def test_float16_of_peers_is_timed(tool, shape):
    """mmcv's kernel and the formula are as right as float16 lets them be on these inputs."""
    contenders, of_inputs = tool('tools.benchmarks.contenders'), tool('tools.benchmarks.inputs')

    class Op(torch.autograd.Function):
        @staticmethod
        def forward(context, pred, labels):
            context.save_for_backward(pred, labels)
            return mmcv_kernel.forward(pred, labels)

        @staticmethod
        def backward(context, gradient):
            return mmcv_kernel.backward(*context.saved_tensors) * gradient, None

    def op(pred, labels, weight, avg_factor):
        return (Op.apply(pred, labels) * weight[:, None]).sum() / avg_factor

    losses = {contenders.MMCV: lambda pred: op, contenders.FORMULA: lambda pred: contenders.formula}
    tolerance = of_inputs.TOLERANCE[torch.float16]
    right, wrong = of_inputs.right_ones(cases(tool, 2, shape, torch.float16), losses, contenders.formula, tolerance)
    assert list(right) == list(losses) and wrong == 0


def test_a_contender_is_held_to_all_inputs_and_its_failure_is_its_own(tool, entered, capsys):
    contenders = tool('tools.benchmarks.contenders')
    inputs = cases(tool, 2)

    def later_wrong(pred, *rest):
        return contenders.formula(pred, *rest) * (1.01 if pred is inputs[1].logits[0] else 1)

    def too_large(*inputs):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')

    def failing(*inputs):
        raise RuntimeError('no C compiler\nset CC')

    names = [entered('later wrong', later_wrong), entered('large', too_large), entered('failing', failing)]
    chosen = {name: contenders.CONTENDERS[name] for name in (*names, contenders.MMCV, contenders.FORMULA)}
    losses, wrong = tool('tools.benchmarks.inputs').right_ones(inputs, chosen, contenders.formula, (1e-3, 1e-5))
    assert list(losses) == [contenders.FORMULA] and wrong == 2
    said = capsys.readouterr().out
    assert 'NOT TIMED: later wrong: its value' in said and 'left out: large: out of GPU memory\n' in said
    assert (
        'NOT TIMED: failing: RuntimeError: no C compiler\n' in said and "left out: mmcv's op: mmcv's op needs" in said
    )


def on_gpu(dtype, logits=1) -> types.SimpleNamespace:
    return types.SimpleNamespace(is_cuda=True, dtype=dtype, numel=lambda: logits)


@pytest.fixture
def provided(tool, monkeypatch):
    """Provides mmcv's op where tests/mmcv_kernel.py has these functions and PATH this nvcc."""
    contenders = tool('tools.benchmarks.contenders')
    monkeypatch.setattr(mmcv.ops.focal_loss, 'ext_module', mmcv.ops.focal_loss.ext_module)

    def provide(nvcc: str | None, **functions) -> None:
        kernel = types.SimpleNamespace(NAMES=mmcv_kernel.NAMES, _arch=lambda device: None, **functions)
        monkeypatch.setattr('tests.interop.mmcv_kernel', kernel)
        monkeypatch.setattr(contenders.shutil, 'which', lambda name: nvcc)
        contenders.provide_mmcv_op(on_gpu(torch.float16))

    return provide


def test_mmcvs_op_of_another_gpu_is_built_from_its_sources(provided):
    """Built for the host, it takes the host's tensors."""

    def has_op():
        raise RuntimeError('CUDA error: no kernel image is available for execution on the device')

    built = mmcv_kernel._library(None)
    provided('nvcc', _has_cuda_op=has_op, _library=lambda arch: built)
    for dtype in (torch.float32, torch.float16):
        pred, labels = torch.randn(40, 3).to(dtype).requires_grad_(), torch.randint(0, 4, (40,))
        loss = mmcv.ops.sigmoid_focal_loss(pred, labels, 1.5, 0.4, None, 'none')
        loss.sum().backward()
        assert torch.equal(loss, mmcv_kernel.forward(pred, labels, None, 1.5, 0.4))
        assert torch.equal(pred.grad, mmcv_kernel.backward(pred, labels, None, 1.5, 0.4))


def test_why_mmcvs_op_cannot_run_is_said(provided, tool):
    def library(arch):
        raise AssertionError('nvcc -O3\nerror: no such architecture')

    contenders = tool('tools.benchmarks.contenders')
    with pytest.raises(contenders.CannotRunError, match='no nvcc on the PATH'):
        provided(None, _has_cuda_op=lambda: False)
    with pytest.raises(contenders.CannotRunError, match=r'nvcc does not build .*: error: no such architecture'):
        provided('nvcc', _has_cuda_op=lambda: False, _library=library)
    with pytest.raises(contenders.CannotRunError, match='bfloat16'):
        contenders.provide_mmcv_op(on_gpu(torch.bfloat16))
    with pytest.raises(contenders.CannotRunError, match='32 bits'):
        contenders.provide_mmcv_op(on_gpu(torch.float32, 2**31))


# Time


def test_a_gpu_is_not_waited_for_between_runs_and_the_first_is_not_counted(tool, monkeypatch):
    """Events of a made-up GPU, whose clock is moved by the steps alone."""
    measure = tool('tools.benchmarks.measure')
    clock, waits = [0.0], []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock[0]

        def elapsed_time(self, end):
            assert waits, 'the events have not come yet'
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: waits.append(clock[0]))

    def takes(milliseconds):
        return lambda: clock.__setitem__(0, clock[0] + milliseconds)

    def runs():
        for number in range(3):
            clock[0] += 100  # between two runs
            yield takes(1 + number), takes(10 + number)

    assert measure.timed_runs('cuda', runs()) == [[2, 11], [3, 12]]
    assert waits == [clock[0]]


def test_a_run_on_a_gpu_takes_its_defaults_from_there(tool, monkeypatch, tmp_path):
    benchmark = tool('tools.benchmarks.losses')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    args = benchmark.parse(['--device', 'cuda', '--out', str(tmp_path / 'new.csv')])
    assert args.dtypes == ['float32', 'float16', 'bfloat16'] and args.minutes == 7
    # mmcv's kernel counts logits in 32 bits; training as users do it has hundreds of megabytes of them.
    assert max(4 * rows * classes for rows, classes in args.shapes) > 400e6
    assert all(rows * classes < 2**31 for rows, classes in args.shapes)
    assert {classes for _, classes in args.shapes} == {80, 1203, 1}
    quick = benchmark.parse(['--device', 'cuda', '--quick'])
    assert quick.out is None
    cpu = benchmark.parse([])
    assert cpu.dtypes == ['float32', 'bfloat16'] and cpu.minutes == float('inf')
    assert (200000, 80) in cpu.shapes


# What comes of it


def test_bars_and_rates_are_the_rows(tool):
    plot, found = tool('tools.plots.benchmark'), made_up()
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


def test_roof_is_that_of_the_card_or_of_a_clone(tool):
    plot = tool('tools.plots.benchmark')
    for machine, roof in (('NVIDIA H100 80GB HBM3', 3352.0), ('Some GPU', 111.0)):
        rates = plot.draw(made_up(machine)).axes[-1]
        (line,) = rates.get_lines()
        assert set(line.get_ydata()) == {roof}


def test_picture_of_a_csv_is_of_its_gpu(tool, tmp_path):
    results, plot = tool('tools.benchmarks.results'), tool('tools.plots.benchmark')
    path = tmp_path / 'benchmark.csv'
    cpu = [row | {'device': 'cpu', 'machine': 'a CPU'} for row in made_up()]
    results.update(path, cpu, ('machine', 'shape', 'dtype', 'contender'))
    with pytest.raises(SystemExit, match='no rows of a GPU'):
        plot.main([str(path)])
    results.update(path, made_up(), ('machine', 'shape', 'dtype', 'contender'))
    plot.main([str(path)])
    assert (tmp_path / 'gpu.png').read_bytes().startswith(b'\x89PNG')


def test_tables_hold_the_figures_and_the_versions(tool):
    tables = tool('tools.benchmarks.tables')
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


def test_tables_tell_the_gpus_work_from_the_time_of_a_step(tool):
    tables, found = tool('tools.benchmarks.tables'), made_up()
    assert 'own work' not in tables.benchmark(found)
    for row in found:
        row['gpu_ms'] = (
            '' if row['contender'] == 'peer' and row['shape'] == '500x1' else f'{float(row["both_ms"]) / 10:g}'
        )
    text = tables.benchmark(found)
    assert "Of that the GPU's own work, in milliseconds:" in text
    assert '| (2000, 80) | float16 | 0.45 | 0.55 | 0.65 |' in text and '| (500, 1) | float32 | - |' in text


def test_only_what_a_gpu_does_is_its_work(tool, monkeypatch):
    """Of a made-up profile: two runs, of which the host's events and the gaps do not count."""
    measure = tool('tools.benchmarks.measure')
    event = types.SimpleNamespace
    gpu, host = measure.DeviceType.CUDA, measure.DeviceType.CPU
    seen = [event(device_type=gpu, device_time=30.0), event(device_type=host, device_time=500.0)] * 2
    monkeypatch.setattr(measure, 'profile', lambda activities: contextlib.nullcontext(event(events=lambda: seen)))
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)
    done = []
    assert measure.busy([lambda n=n: done.append(n)] for n in range(2)) == pytest.approx(0.03)
    assert done == [0, 1]


@pytest.fixture
def training(tool, monkeypatch):
    """benchmark_training on a model and images that a CPU has done with in no time."""
    module = tool('tools.benchmarks.training')
    monkeypatch.setattr(module, 'model_config', lambda: detectors.model_config('RetinaNet'))
    for name, small in dict(SIZE=(64, 64), IMAGES=1, WARM_UP=0, RUNS=2).items():
        monkeypatch.setattr(module, name, small)
    logger, threads = MMLogger.get_current_instance(), torch.get_num_threads()
    level = logger.level
    logger.setLevel('WARNING')
    torch.set_num_threads(1)  # threads that wait for each other over so little work take most of the time
    yield module
    torch.set_num_threads(threads)
    logger.setLevel(level)


def test_a_training_step_of_each_loss(training, monkeypatch, tmp_path, capsys):
    from mmdet.models.losses import FocalLoss
    from mmdet.registry import MODELS

    class WrongFocalLoss(FocalLoss):
        def forward(self, *args, **kwargs):
            return 1.1 * super().forward(*args, **kwargs)

    monkeypatch.setitem(MODELS._module_dict, 'WrongFocalLoss', WrongFocalLoss)
    contenders = training.CONTENDERS
    monkeypatch.setattr(training, 'CONTENDERS', (*contenders, ('RetinaHead', 'WrongFocalLoss')))
    monkeypatch.setattr(training, 'DTYPES', {'float32': torch.float32})
    out, source = tmp_path / 'training.csv', dict(machine='here', torch='', triton='', commit='')
    assert training.run('cpu', out, source) == 1
    assert 'RetinaHead, WrongFocalLoss: ValueError: its class loss is' in capsys.readouterr().out
    found = rows(out)
    assert [row['contender'] for row in found] == [f'{head}, {loss}' for head, loss in contenders]
    right = float(found[0]['loss_cls'])
    for row in found:
        assert float(row['loss_cls']) == pytest.approx(right, rel=1e-5) and float(row['step_ms']) > 0


def test_a_training_step_in_half_precision(training):
    """By autocast: close to float32's, but not the same."""
    full, half = (
        training.step(training.build('FusedRetinaHead', 'FusedFocalLoss', 'cpu'), precision, 'cpu')().item()
        for precision in ('float32', 'bfloat16')
    )
    assert 0 < abs(half - full) < 0.01 * full


def test_a_training_step_trains(training):
    """The same weights at first; a step changes them, by way of a gradient that the next one does not find."""
    first, second = (training.build(head, loss, 'cpu') for head, loss in training.CONTENDERS[1:])
    before = {name: value.clone() for name, value in first.state_dict().items()}
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in before.items())
    training.step(first, 'float32', 'cpu')()
    changed = {name for name, value in first.state_dict().items() if not torch.equal(value, before[name])}
    assert {'bbox_head.retina_cls.weight', 'bbox_head.retina_reg.weight', 'neck.fpn_convs.0.conv.weight'} <= changed
    assert all(parameter.grad is None for parameter in first.parameters())


def test_a_whole_run(tool, monkeypatch, tmp_path, capsys):
    """As on a GPU, but on the CPU: one case has too many logits, the last one no time."""
    benchmark, out = tool('tools.benchmarks.losses'), tmp_path / 'new' / 'benchmark.csv'
    args = benchmark.parse(['--shapes', '50x3', '9999x1', '60x1', '70x2', '--dtypes', 'float16', '--rounds', '2'])
    args.contenders, args.minutes, args.out = [NATIVE], 4.0, out
    clock = [0.0]

    def sets(make, device):
        clock[0] += 70
        found = [make(seed) for seed in range(2)]
        if len(found[0].logits[0]) == 9999:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return found

    monkeypatch.setattr(benchmark, 'monotonic', lambda: clock[0])
    monkeypatch.setattr(benchmark, 'parse', lambda arguments: args)
    monkeypatch.setattr(tool('tools.benchmarks.compare'), 'sets', sets)
    assert benchmark.main() == 0
    said = capsys.readouterr().out
    assert (
        '(9999, 1) float16 on cpu\n  left out: out of GPU memory' in said and '(--minutes): (70, 2) float16\n' in said
    )
    times = rows(out)
    assert [(row['shape'], row['contender']) for row in times] == [
        (s, n) for s in ('50x3', '60x1') for n in (NATIVE, CLONE)
    ]
