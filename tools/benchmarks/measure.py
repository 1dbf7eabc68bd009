"""Time and memory of one forward and backward, on the CPU and on a GPU."""

import ctypes
import gc
import itertools
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tools.training.memory import resident


def timed(device: str, *steps: Callable[[], object]) -> list[float]:
    """Milliseconds of each step, run one after the other."""
    if device == 'cuda':
        torch.cuda.synchronize()
        marks = _marked(steps)
        torch.cuda.synchronize()
        return _between(marks)
    times = [time.perf_counter()]
    for step in steps:
        step()
        times.append(time.perf_counter())
    return [1e3 * (end - start) for start, end in itertools.pairwise(times)]


def timed_runs(device: str, runs: Iterable[Iterable[Callable[[], object]]]) -> list[list[float]]:
    """Milliseconds of each step of each run; on a GPU the first run is not counted.

    A GPU is not waited for between the runs: a step takes its time as long as Python launches faster than it works, and
    else, where there is little to do, Python's.
    """
    if device == 'cuda':
        marks = [_marked(steps) for steps in runs]
        torch.cuda.synchronize()
        return [_between(run) for run in marks[1:]]
    return [timed(device, *steps) for steps in runs]


def _marked(steps: Iterable[Callable[[], object]]) -> list[torch.cuda.Event]:
    """Runs the steps; events before the first and after each."""
    marks = [torch.cuda.Event(enable_timing=True)]
    marks[0].record()
    for step in steps:
        step()
        marks.append(torch.cuda.Event(enable_timing=True))
        marks[-1].record()
    return marks


def _between(marks: list[torch.cuda.Event]) -> list[float]:
    return [start.elapsed_time(end) for start, end in itertools.pairwise(marks)]


def busy(runs: Iterable[Iterable[Callable[[], object]]]) -> float:
    """Milliseconds that the GPU works in a run: those of its kernels, copies and fills, without the gaps between them."""
    count = 0
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for steps in runs:
            count += 1
            for step in steps:
                step()
        torch.cuda.synchronize()
    return sum(event.device_time for event in seen.events() if event.device_type == DeviceType.CUDA) / 1e3 / count


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
        Path('/proc/self/clear_refs').write_text('5')
    except (AttributeError, OSError):
        return None
    before = resident('VmRSS')
    run()
    return resident('VmHWM') - before


def release() -> None:
    """Gives the GPU memory that nothing holds any more back, for others to find as free."""
    gc.collect()
    torch.cuda.empty_cache()


class Noise:
    """How much of the processor other processes take from the moment this is made; 0 to 1, None where unknown."""

    def __init__(self) -> None:
        self.start = self._clocks()

    def share(self) -> float | None:
        total, idle, own = (end - start for start, end in zip(self.start, self._clocks(), strict=True))
        return max(0.0, total - idle - own) / total if total else None

    @staticmethod
    def _clocks() -> tuple[float, float, float]:
        """Seconds of all processors, of those the idle ones, and of this process."""
        own = sum(os.times()[:2])
        if not Path('/proc/stat').exists():
            return 0.0, 0.0, own
        ticks = [int(field) / os.sysconf('SC_CLK_TCK') for field in Path('/proc/stat').read_text().split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4], own
