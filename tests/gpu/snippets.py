"""A few lines of PTX in a kernel around them, run by the machine."""

import numpy as np
import torch

from tests.gpu import machine
from tests.gpu.memory import Region

KERNEL = """
.version 8.4
.target sm_90
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry snippet(
    .param .u64 .ptr .global .align 1 snippet_param_0,
    .param .u64 .ptr .global .align 1 snippet_param_1,
    .param .u32 snippet_param_2,
    .param .f32 snippet_param_3
)
.reqntid %d
{
    .reg .pred %%p<8>;
    .reg .b16 %%rs<8>;
    .reg .b32 %%r<16>;
    .reg .b64 %%rd<16>;
    ld.param.b64 %%rd0, [snippet_param_0];
    ld.param.b64 %%rd1, [snippet_param_1];
    mov.u32 %%r0, %%tid.x;
    mad.wide.u32 %%rd2, %%r0, 8, %%rd0;  // this thread's two inputs or four halves
    mad.wide.u32 %%rd3, %%r0, 8, %%rd1;  // and its result
    %s
    ret;
}
"""


def run(body: str, given=(), threads: int = 32, shared: int = 1024, blocks: int = 1, fresh: bool = True) -> np.ndarray:
    """The 8 bytes per thread that a body stores; given are the 8 bytes of the first threads' inputs."""
    inputs, out = torch.zeros(threads, dtype=torch.int64), torch.zeros(threads, dtype=torch.int64)
    inputs[: len(given)] = torch.tensor([int.from_bytes(each, 'little', signed=True) for each in given])
    regions = [Region(inputs, 'inputs', False), Region(out, 'out', fresh)]
    arguments = [inputs.data_ptr(), out.data_ptr(), -7, 0.5]
    machine.launch(KERNEL % (threads, body), (blocks, 1, 1), arguments, regions, shared)
    return out.numpy()


PUT = ' st.global.b32 [%rd3], %r3;'
TO_SHARED = 'mov.b32 %r4, global_smem; shl.b32 %r5, %r0, 2; add.s32 %r5, %r4, %r5; st.shared.b32 [%r5], %r0;'
REVERSED = 'sub.s32 %r6, 63, %r0; shl.b32 %r6, %r6, 2; add.s32 %r6, %r4, %r6; ld.shared.b32 %r3, [%r6];'
