"""The time of a CUDA graph's replays, as far as it can be told without a GPU: torch's graphs are made up here."""

import contextlib
import importlib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TOOK = 6.0  # milliseconds of a replay


class MadeUpGPU:
    """Streams, events and graphs; a graph replays by writing again what its recording wrote."""

    def __init__(self, monkeypatch, cases):
        self.cases, self.log, self.clock = cases, [], 0.0
        self.stream, self.mode, self.spoils, self.refuses = 'default', 'default', False, False
        for name in ('Stream', 'current_stream', 'stream', 'CUDAGraph', 'graph', 'Event'):
            monkeypatch.setattr(torch.cuda, name, getattr(self, f'make_{name}'))
        monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)
        monkeypatch.setattr(torch.cuda, 'get_sync_debug_mode', lambda: self.mode)
        monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', lambda mode: setattr(self, 'mode', mode))

    def make_Stream(self):
        class Stream:
            def wait_stream(_, other):
                self.log.append(f'waits for {other}')

        return Stream()

    def make_current_stream(self):
        return self.stream

    @contextlib.contextmanager
    def make_stream(self, stream):
        before, self.stream = self.stream, 'side'
        try:
            yield
        finally:
            self.stream = before

    def make_CUDAGraph(self):
        class Graph:
            def replay(_):
                self.log.append(f'replayed on {self.stream}')
                self.clock += TOOK
                for tensor, value in self.written:
                    tensor.copy_(value * (2 if self.spoils else 1))

        return Graph()

    @contextlib.contextmanager
    def make_graph(self, graph, stream):
        self.log.append(f'recorded on {self.stream}, mode {self.mode}')
        self.stream = 'left by a recording that failed'  # as torch's own context does
        yield
        if self.refuses:
            raise RuntimeError('CUDA error: operation not permitted when stream is capturing\nCUDA kernel errors ...')
        self.stream = 'side'
        self.written = [(grad, grad.clone()) for case in self.cases for grad in case.gradients]

    def make_Event(self, enable_timing):
        class Event:
            def record(event):
                event.at = self.clock

            def elapsed_time(event, end):
                return end.at - event.at

        return Event()


@pytest.fixture
def tool():
    """Imports a module of the tools."""
    return importlib.import_module


@pytest.fixture
def cases(tool):
    return [tool('tools.benchmarks.inputs').detector(50, 3, torch.float32, 'cpu', seed) for seed in range(3)]


@pytest.fixture
def gpu(monkeypatch, cases):
    return MadeUpGPU(monkeypatch, cases)


@pytest.fixture
def replayed(tool, gpu, cases):
    """Times the replays of a loss."""

    def run(loss=lambda pred, *rest: pred.square().sum()):
        def runs():
            for case in cases:
                case.clear()
                gpu.log.append(f'runs on {gpu.stream}, mode {gpu.mode}')
                yield (lambda case=case: case.backward(case.run(loss)),)

        return tool('tools.benchmarks.measure').replayed(
            runs, lambda: [grad for case in cases for grad in case.gradients]
        )

    return run


def test_a_run_is_a_replay_over_the_runs_in_it(gpu, replayed):
    assert replayed() == pytest.approx(TOOK / 3)
    before, recorded, after = gpu.log[1:4], gpu.log[4:8], gpu.log[8:]
    assert gpu.log[0] == 'waits for default' and before == ['runs on side, mode error'] * 3
    assert recorded[0] == 'recorded on side, mode default' and len(recorded) == 4
    assert set(after) == {'replayed on default'} and len(after) >= 5
    assert (gpu.stream, gpu.mode) == ('default', 'default')


def test_gradients_of_a_replay_are_held_to_those_of_a_run(gpu, replayed):
    gpu.spoils = True
    with pytest.raises(RuntimeError, match='leaves other gradients'):
        replayed()


def test_what_a_replay_does_not_write_is_found(gpu, replayed, monkeypatch):
    """Left from the recording, the gradients would be right."""
    monkeypatch.setattr(gpu, 'written', [], raising=False)
    graph = gpu.make_graph

    @contextlib.contextmanager
    def writes_nothing(*args, **kwargs):
        with graph(*args, **kwargs):
            yield
        gpu.written = []

    monkeypatch.setattr(torch.cuda, 'graph', writes_nothing)
    with pytest.raises(RuntimeError, match='leaves other gradients'):
        replayed()


def test_what_waits_for_the_gpu_is_not_recorded(gpu, replayed):
    def waits(pred, *rest):
        if gpu.mode == 'error':
            raise RuntimeError('called a synchronizing CUDA operation')
        return pred.sum()

    with pytest.raises(RuntimeError, match='synchronizing'):
        replayed(waits)
    assert not any(line.startswith('recorded') for line in gpu.log)
    assert (gpu.stream, gpu.mode) == ('default', 'default')


def test_a_recording_that_fails_leaves_the_stream_as_it_was(gpu, replayed):
    gpu.refuses = True
    with pytest.raises(RuntimeError, match='not permitted'):
        replayed()
    assert gpu.stream == 'default'


def test_graphs_have_a_column_which_is_empty_where_none_was_recorded(tool, gpu, cases, monkeypatch, capsys):
    turns = tool('tools.benchmarks.compare')
    monkeypatch.setattr(turns, 'timed_runs', lambda device, runs: [[1.0, 2.0] for _ in runs][1:])
    monkeypatch.setattr(turns, 'peak_bytes', lambda device, run: 0)
    monkeypatch.setattr(turns, 'busy', lambda runs: float(len([[step() for step in steps] for steps in runs])))

    def right(pred, *rest):
        return pred.square().sum()

    def waits(pred, *rest):
        if gpu.mode == 'error':
            raise RuntimeError('called a synchronizing CUDA operation\nset it to 0')
        return pred.sum()

    rows = {row['contender']: row for row in turns.measure(cases, {'right': right, 'waits': waits}, 2, 'cuda')}
    assert {name: row['graph_ms'] for name, row in rows.items()} == {
        'right': '2',
        'waits': '',
        turns.CLONE: '2',
    }
    assert all(row['gpu_ms'] == '10' and row['both_ms'] == '3' for row in rows.values())
    said = capsys.readouterr().out
    assert said == '  no CUDA graph of waits: RuntimeError: called a synchronizing CUDA operation\n'


def test_mmcvs_op_built_from_sources_is_not_run_beside_the_default_stream(tool, monkeypatch):
    """It would run unordered, and be missing in a recording."""
    called = []
    library = type('Library', (), {'run_float': lambda *args: called.append(args) or 0})()
    kernel = type('Kernel', (), {'_library': lambda arch: library, '_arch': lambda device: arch, 'NAMES': {}})
    arch = 'sm_90'
    kernel.NAMES[torch.float32] = 'run_float'
    op = tool('tools.benchmarks.contenders')._built_op(kernel).sigmoid_focal_loss_forward

    class OnGPU(torch.Tensor):
        is_cuda = True

    pred = torch.zeros(2, 3).as_subclass(OnGPU)
    monkeypatch.setattr(torch.cuda, 'default_stream', lambda: 'default')
    for stream in ('side', 'default'):
        monkeypatch.setattr(torch.cuda, 'current_stream', lambda stream=stream: stream)
        arguments = (pred, torch.zeros(2).long(), torch.zeros(0), torch.zeros(2, 3))
        if stream == 'side':
            with pytest.raises(RuntimeError, match='default stream alone'):
                op(*arguments, gamma=2.0, alpha=0.25)
        else:
            op(*arguments, gamma=2.0, alpha=0.25)
    assert len(called) == 1


def test_committed_rows_have_the_column(tool):
    rows = tool('tools.benchmarks.results').read(tool('tools.benchmarks.results').BENCHMARK)
    assert all('graph_ms' in row for row in rows)


def test_readme_shows_replays_once_some_were_measured(tool):
    tables = tool('tools.benchmarks.tables')
    names = ('peer', 'FusedFocalLoss (triton)')
    rows = [
        dict(machine='Some GPU', device='cuda', shape='9x1', dtype='float32', contender=name, both_ms='2', gb_per_s='5')
        | dict(extra_memory='1', torch='2', triton='3', commit='abc', gpu_ms='', graph_ms='')
        for name in names
    ]
    assert 'CUDA graph' not in tables.benchmark(rows)
    rows[1]['graph_ms'] = '0.0375'
    assert 'Replayed by a CUDA graph, in milliseconds:' in tables.benchmark(rows)
    assert '| (9, 1) | float32 | - | 0.0375 |' in tables.benchmark(rows)
