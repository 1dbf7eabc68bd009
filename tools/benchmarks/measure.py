"""Time and memory of runs, on the CPU and on a GPU. A run is a few steps: functions that are called one after the other."""

import ctypes
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tools.training.memory import reset_peak, resident

Runs = Iterable[Iterable[Callable[[], object]]]
REPLAYS = 10


def timed_runs(device: str, runs: Runs) -> list[list[float]]:
    """Milliseconds of each step of each run; on a GPU the first run is not counted.

    A GPU is not waited for between the runs: a step takes its time as long as Python launches faster than it works, and
    else, where there is little to do, Python's.
    """
    if device == 'cpu':
        clocks = _marked(runs, time.perf_counter)
        return [[1e3 * (end - start) for start, end in itertools.pairwise(run)] for run in clocks]
    events = _marked(runs, _event)
    torch.cuda.synchronize()
    return [[start.elapsed_time(end) for start, end in itertools.pairwise(run)] for run in events[1:]]


def _marked(runs: Runs, mark: Callable) -> list[list]:
    """Runs the steps; the marks of each run, made before its first step and after each."""
    marks = []
    for steps in runs:
        marks.append([mark()])
        for step in steps:
            step()
            marks[-1].append(mark())
    return marks


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def busy(runs: Runs) -> float:
    """Milliseconds that the GPU works in a run: those of its kernels, copies and fills, without the gaps between them."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        count = run_all(runs)
        torch.cuda.synchronize()
    return sum(event.device_time for event in seen.events() if event.device_type == DeviceType.CUDA) / 1e3 / count


def replayed(runs: Callable[[], Runs], gradients: Callable[[], list[Tensor]]) -> float:
    """Milliseconds of a run where a CUDA graph replays all of them, so without Python between their kernels.

    Args:
        runs: the steps of one run on each set of inputs.
        gradients: what the runs left.

    Raises:
        RuntimeError: the runs can't be recorded, or replayed they leave other gradients.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    # Entered here too, because torch.cuda.graph leaves its stream current where the recording fails.
    with torch.cuda.stream(stream):
        # What waits for the GPU can't be recorded: found before, since torch does not recover from a recording that fails.
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode('error')
        try:
            run_all(runs())
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        right = gradients()
        with torch.cuda.graph(graph, stream=stream):
            count = run_all(runs())
    torch.cuda.synchronize()
    for gradient in gradients():
        gradient.fill_(torch.nan)
    graph.replay()
    if not all(map(torch.allclose, gradients(), right)):
        raise RuntimeError('its replay leaves other gradients than its run')
    del right
    times = timed_runs('cuda', ([graph.replay] for _ in range(REPLAYS + 1)))
    return statistics.median(time for (time,) in times) / count


def run_all(runs: Runs) -> int:
    """Runs all steps; how many runs there were."""
    count = 0
    for steps in runs:
        count += 1
        for step in steps:
            step()
    return count


def peak_bytes(device: str, run: Callable[[], object]) -> int | None:
    """The most memory that run() holds at once beyond what was held before; None where the system does not tell.

    On the CPU: how far the resident memory of this process rises (Linux resets its high-water mark on request). Freed
    heap is given back first, so that nothing hides in it; torch maps large tensors afresh at each allocation anyway.
    """
    gc.collect()
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        reset_peak()
    except (AttributeError, OSError):
        return None
    before = resident('VmRSS')
    run()
    return resident('VmHWM') - before


def allocated_bytes(run: Callable[[], object]) -> int:
    """The most that run() holds at once of what PyTorch allocates on the CPU, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    changes = (event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == '[memory]')
    return max(itertools.accumulate(changes), default=0)


def release() -> None:
    """Gives the GPU memory that nothing holds any more back, for others to find as free."""
    gc.collect()
    torch.cuda.empty_cache()
