"""What tools/benchmarks/losses.py does on a GPU, as far as it can be told without one."""

import contextlib
import importlib
import itertools
import types

import pytest
import torch

from tests.interop import mmcv_kernel

NATIVE, CLONE = 'FusedFocalLoss (native)', 'clone of the logits'


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


def cases(tool, count: int, shape=(50, 3), dtype=torch.float32) -> list:
    return [tool('tools.benchmarks.inputs').detector(*shape, dtype, 'cpu', seed) for seed in range(count)]


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
    times = tool('tools.benchmarks.results').read(out)
    assert [(row['shape'], row['contender']) for row in times] == [
        (s, n) for s in ('50x3', '60x1') for n in (NATIVE, CLONE)
    ]
