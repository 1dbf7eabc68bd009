"""Each kind of fault stops the machine, which names the kernel and the instruction."""

import pytest

from tests.gpu.memory import Fault
from tests.gpu.snippets import PUT, REVERSED, TO_SHARED, run

FAULTS = {
    'beyond a tensor': ('ld.global.b32 %r3, [%rd2+8];' + PUT, r'read of 4 bytes at inputs \+ 256|outside of every tensor'),
    'far from any': ('ld.global.b32 %r3, [16];' + PUT, '0x10, outside of every tensor'),
    'between two multiples of its size': ('ld.global.b32 %r3, [%rd2+2];' + PUT, 'no multiple of 4'),
    'a vector between two': ('add.s64 %rd2, %rd2, 4; ld.global.v2.b32 {%r3, %r4}, [%rd2];' + PUT, 'no multiple of 8'),
    'a write to an input': ('st.global.b32 [%rd2], %r0;', r'write to 4 bytes at inputs \+ 0, an input'),
    'a read of an output that nobody wrote': ('ld.global.b32 %r3, [%rd3];' + PUT, r'at out \+ 0, not written'),
    'two threads write one place': ('st.global.b32 [%rd1], 1;', 'a second write to one place'),
    'one thread writes it twice': ('st.global.b32 [%rd3], 1; st.global.b32 [%rd3], 1;', 'a second write to one place'),
    'shared memory that nobody wrote': ('ld.shared.b32 %r3, [global_smem];' + PUT, 'no thread wrote'),
    'beyond shared memory': ('mov.b32 %r4, global_smem; st.shared.b32 [%r4+1024], %r0;', 'access at 1024 of 1024'),
    'no barrier before a read': (f'{TO_SHARED} {REVERSED} {PUT}', 'read of shared memory that another warp wrote'),
    'no barrier before a write': (f'{TO_SHARED} bar.sync 0; {REVERSED} st.shared.b32 [%r5], 99;', 'another warp read'),
    'two warps write one place': (
        'mov.b32 %r4, global_smem; shr.u32 %r5, %r0, 5; st.shared.b32 [%r4], %r5;', 'different values'
    ),
    'a barrier for some': ('setp.lt.s32 %p1, %r0, 40; @%p1 bar.sync 0;', 'a barrier that not all'),
    'a shuffle for some': ('setp.lt.s32 %p1, %r0, 40; @%p1 shfl.sync.bfly.b32 %r3, %r0, 1, 31, -1;', 'a shuffle without'),
    'a register that nothing was written to': ('add.s32 %r3, %r9, 1;', 'nothing was written to'),
    'an instruction that is none': ('frobnicate.b32 %r3, %r0;', 'unknown instruction: frobnicate.b32 %r3, %r0'),
    'an unknown modifier': ('add.sat.f32 %r3, %r0, %r0;', 'unknown instruction'),
}  # fmt: skip


@pytest.mark.parametrize(('body', 'message'), FAULTS.values(), ids=FAULTS)
def test_faults_name_kernel_and_instruction(body, message):
    with pytest.raises(Fault, match=message) as caught:
        run(body, threads=64)
    assert str(caught.value).startswith('snippet: ')
