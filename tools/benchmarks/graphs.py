"""Runs recorded in a CUDA graph: what they take without Python between their kernels."""

import contextlib
import statistics
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from tools.benchmarks.measure import timed_runs

REPLAYS = 10
Runs = Iterable[Iterable[Callable[[], object]]]


def replayed(runs: Callable[[], Runs], gradients: Callable[[], list[Tensor]]) -> float:
    """Milliseconds of a run where a CUDA graph replays all of them, one after the other.

    Args:
        runs: the steps of one run on each set of inputs.
        gradients: what the runs left.

    Raises:
        RuntimeError: the runs can't be recorded, or replayed they leave other gradients.
    """
    graph, count, right = recorded(runs, gradients)
    for gradient in gradients():
        gradient.fill_(torch.nan)
    graph.replay()
    if not all(map(torch.allclose, gradients(), right)):
        raise RuntimeError('its replay leaves other gradients than its run')
    del right
    times = timed_runs('cuda', ([graph.replay] for _ in range(REPLAYS + 1)))
    return statistics.median(time for (time,) in times) / count


def recorded(runs: Callable[[], Runs], gradients: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, int, list]:
    """The graph of the runs, how many it holds, and the gradients of the same runs without it."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    # Entered here too, because torch.cuda.graph leaves its stream current where the recording fails.
    with torch.cuda.stream(stream):
        with _waiting_is_an_error():
            _run(runs())
        right = gradients()
        with torch.cuda.graph(graph, stream=stream):
            count = _run(runs())
    torch.cuda.synchronize()
    return graph, count, right


@contextlib.contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """What waits for the GPU can't be recorded: found before, since torch does not recover from a recording that fails."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _run(runs: Runs) -> int:
    count = 0
    for steps in runs:
        count += 1
        for step in steps:
            step()
    return count
