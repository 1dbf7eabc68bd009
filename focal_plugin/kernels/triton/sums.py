"""The partial sums of programs, added up."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from focal_plugin.kernels.remembered import described
from focal_plugin.kernels.triton import launches
from focal_plugin.kernels.triton.launches import Launch
from focal_plugin.kernels.triton.operands import divided

BLOCK = 8192  # a few trips for the programs of a whole chip's work
WARPS = 16


@triton.jit(do_not_specialize=['avg_ptr', 'count'])
def sum_kernel(partial_ptr, avg_ptr, out_ptr, count, HAS_AVG: tl.constexpr, BLOCK: tl.constexpr):
    """Adds the partial sums in a fixed order and divides by avg_factor."""
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        total += tl.load(partial_ptr + start + lane, mask=start + lane < count, other=0.0)
    tl.store(out_ptr, divided(tl.sum(total), avg_ptr, HAS_AVG))


def add(partial: Tensor, avg_factor: Tensor | None, out: Tensor) -> None:
    """Writes the sum, over avg_factor, into out."""
    count = partial.numel()
    constants = {'HAS_AVG': avg_factor is not None, 'BLOCK': BLOCK}
    like = launches.kept(
        (partial.device, count, described(avg_factor)),
        lambda: Launch(sum_kernel, (1, 1, 1), WARPS, {'count': count}, constants),
    )
    like({'partial_ptr': partial, 'avg_ptr': avg_factor, 'out_ptr': out})
