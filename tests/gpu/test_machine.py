"""Each kind of instruction by a few lines of PTX with a known result."""

import struct

import numpy as np
import pytest
import torch

from tests.gpu import instructions
from tests.gpu.snippets import PUT, REVERSED, TO_SHARED, run

NAN, INF = float('nan'), float('inf')


def f32(value: float) -> int:
    return struct.unpack('<I', struct.pack('<f', value))[0]


TWO = 'ld.global.v2.b32 {%r1, %r2}, [%rd2]; '
TRUTH = ' selp.b32 %r3, 1, 0, %p1; st.global.b32 [%rd3], %r3;'


def of_two(body: str, a: float, b: float) -> float:
    bits = int(run(TWO + body + PUT, [struct.pack('<ff', a, b)])[0]) & 0xFFFFFFFF
    return struct.unpack('<f', struct.pack('<I', bits))[0]


FLOATS = {
    'a sum': ('add.f32 %r3, %r1, %r2;', 1.5, 2.25, 3.75),
    'a difference': ('sub.f32 %r3, %r1, %r2;', 1.5, 2.25, -0.75),
    'a product': ('mul.f32 %r3, %r1, 0f40400000;', 1.5, 0, 4.5),
    'a subnormal product': ('mul.f32 %r3, %r1, %r2;', 2.0**-100, 2.0**-30, 2.0**-130),
    'flushed': ('fma.rn.ftz.f32 %r3, %r1, %r2, 0f00000000;', 2.0**-100, 2.0**-30, 0.0),
    'fused: the product is not rounded': ('fma.rn.f32 %r3, %r1, %r1, %r2;', 1 + 2.0**-23, -(1 + 2.0**-22), 2.0**-46),
    'rounded once, not in float64 before': (
        'mov.b32 %r4, 0f3F800001; fma.rn.f32 %r3, %r1, %r2, %r4;', 1 + 2.0**-20, 2.0**-24 * (1 - 2.0**-20), 1 + 2.0**-23
    ),
    'a half plus a little is rounded up': ('fma.rn.f32 %r3, %r1, %r1, %r2;', 2.0**-12 * (1 + 2.0**-23), 1.0, 1 + 2.0**-23),
    'a half itself to even': ('fma.rn.f32 %r3, %r1, %r1, %r2;', 2.0**-12, 1.0, 1.0),
    'a negation': ('neg.f32 %r3, %r1;', 2.0, 0, -2.0),
    'a size': ('abs.f32 %r3, %r1;', -2.0, 0, 2.0),
    'a size in half precision': (
        'cvt.rn.f16.f32 %rs1, %r1; abs.f16 %rs2, %rs1; cvt.f32.f16 %r3, %rs2;', -2.0, 0, 2.0
    ),
    'sizes of a pair': (
        'cvt.rn.f16x2.f32 %r4, %r2, %r1; abs.f16x2 %r5, %r4; and.b32 %r6, %r5, 65535; cvt.u16.u32 %rs1, %r6; '
        'cvt.f32.f16 %r3, %rs1;', -2.0, -3.0, 2.0
    ),
    'a size in bfloat16': (
        'cvt.rn.bf16.f32 %rs1, %r1; abs.bf16 %rs2, %rs1; cvt.f32.bf16 %r3, %rs2;', -2.0, 0, 2.0
    ),
    'the least, not NaN': ('min.f32 %r3, %r1, %r2;', NAN, 2.0, 2.0),
    'the least, -0': ('min.f32 %r3, %r1, %r2;', 0.0, -0.0, -0.0),
    'the greatest, 0': ('max.f32 %r3, %r1, %r2;', -0.0, 0.0, 0.0),
    'the least, NaN': ('min.NaN.f32 %r3, %r1, %r2;', NAN, 2.0, NAN),
    'the greatest, NaN': ('max.NaN.f32 %r3, %r1, %r2;', 2.0, NAN, NAN),
    'the least size, with the sign of the product': ('min.NaN.xorsign.abs.f32 %r3, %r1, %r2;', -3.0, 2.0, -2.0),
    'a power of 2': ('ex2.approx.ftz.f32 %r3, %r1;', 0.5, 0, float(np.float32(2**0.5))),
    'a subnormal power of 2': ('ex2.approx.ftz.f32 %r3, %r1;', -130.0, 0, 0.0),
    'a logarithm': ('lg2.approx.ftz.f32 %r3, %r1;', 8.0, 0, 3.0),
    'the logarithm of 0': ('lg2.approx.ftz.f32 %r3, %r1;', 2.0**-130, 0, -INF),
    'a reciprocal': ('rcp.approx.ftz.f32 %r3, %r1;', -4.0, 0, -0.25),
    'the reciprocal of -0': ('rcp.approx.ftz.f32 %r3, %r1;', -0.0, 0, -INF),
    'a quotient': ('div.full.f32 %r3, %r1, %r2;', 1.0, 3.0, float(np.float32(1 / 3))),
    'a choice': ('setp.lt.f32 %p1, %r1, %r2; selp.f32 %r3, %r1, 0f7FC00000, %p1;', 1.0, 3.0, 1.0),
    'a whole number': ('cvt.rn.f32.s32 %r3, -16777217;', 0, 0, -16777216.0),
    'the double between two floats, to the even one': (
        '{ .reg .f64 d; mov.b64 d, 0x3FF0000030000000; cvt.rn.f32.f64 %r3, d; }', 0, 0, 1 + 2.0**-22
    ),
    'a parameter': ('ld.param.b32 %r3, [snippet_param_3];', 0, 0, 0.5),
    'a register of its own scope': ('{ .reg .f32 r; mul.f32 r, %r1, %r2; add.f32 %r3, r, %r1; }', 2.0, 3.0, 8.0),
}  # fmt: skip


@pytest.mark.parametrize(('body', 'a', 'b', 'expected'), FLOATS.values(), ids=FLOATS)
def test_floats(body, a, b, expected):
    np.testing.assert_equal(of_two(body, a, b), expected)  # tells -0 from 0


@pytest.mark.parametrize(
    'body', ['add.f32 %r3, %r1, %r2;', 'add.f32 %r3, %r2, %r1;', 'mul.f32 %r3, %r1, 0f00000000;'],
    ids=['of a NaN', 'of a NaN behind', 'made'],
)  # fmt: skip
def test_every_nan_is_the_same(body):
    """Threads that add up the same numbers in another order write the same: the host's NaN would tell the order."""
    given = struct.pack('<II', 0xFF800000 if 'mul' in body else 0xFFC00000, 0x3F800000)
    assert int(run(TWO + body + PUT, [given])[0]) == 0x7FFFFFFF


def test_a_fused_sum_is_that_of_exact_arithmetic():
    """In sums that cancel, lie between two neighbours, or are subnormal."""
    from fractions import Fraction

    random = np.random.default_rng(0)
    a, b, c = (random.standard_normal(4000).astype(np.float32) for _ in range(3))
    a[:1000] = 1 + 2.0**-12
    b[:1000], c[:1000] = 1 + random.integers(0, 4, 1000) * 2.0**-12, random.integers(-3, 4, 1000) * np.float32(2.0**-24)
    a[1000:2000] *= np.float32(2.0**-70)
    b[1000:2000] *= np.float32(2.0**-64)
    c[1000:2000] *= np.float32(2.0**-131)
    for x, y, z, got in zip(a, b, c, instructions.fma(a, b, c), strict=True):
        exact, (below, above) = (
            Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)),
            np.nextafter(got, np.float32([-INF, INF])),
        )
        error = abs(Fraction(float(got)) - exact)
        others = [abs(Fraction(float(each)) - exact) for each in (below, above)]
        assert error < min(others) or (error == min(others) and got.view(np.uint32) % 2 == 0)


COMPARED = {  # of 1 and 2, 2 and 2, 2 and 1, 1 and NaN
    'lt': (1, 0, 0, 0), 'le': (1, 1, 0, 0), 'gt': (0, 0, 1, 0), 'ge': (0, 1, 1, 0), 'eq': (0, 1, 0, 0), 'ne': (1, 0, 1, 0),
    'ltu': (1, 0, 0, 1), 'leu': (1, 1, 0, 1), 'gtu': (0, 0, 1, 1), 'geu': (0, 1, 1, 1), 'equ': (0, 1, 0, 1),
    'neu': (1, 0, 1, 1), 'num': (1, 1, 1, 0), 'nan': (0, 0, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize('kind', ('f32', 'f16', 'bf16', 'f16x2', 'bf16x2'))
@pytest.mark.parametrize('name', COMPARED)
def test_comparisons_of_floats(name, kind):
    pairs = torch.tensor([(1, 2), (2, 2), (2, 1), (1, NAN)])
    if kind == 'f32':
        given, body = pairs, f'{TWO} setp.{name}.f32 %p1, %r1, %r2;'
    else:
        values = pairs.to(torch.float16 if kind.startswith('f') else torch.bfloat16)
        given, body = (
            values.repeat_interleave(2, 1).flip(1),
            f'{TWO} mov.b32 {{%rs1, %rs2}}, %r2; mov.b32 {{%rs3, %rs4}}, %r1;',
        )
        body += (
            f'setp.{name}.{kind} %p1|%p2, %r2, %r1; and.pred %p1, %p1, %p2;'
            if 'x2' in kind
            else f'setp.{name}.{kind} %p1, %rs2, %rs3;'
        )
    rows = [each.contiguous().view(torch.uint8).numpy().tobytes() for each in given]
    assert tuple(run(body + TRUTH, rows)[:4]) == COMPARED[name]


INTEGERS = {
    'less by sign': ('setp.lt.s32 %p1, -1, 1;' + TRUTH, 1),
    'not less without one': ('setp.lt.u32 %p1, -1, 1;' + TRUTH, 0),
    'a predicate from two': ('mov.pred %p2, -1; setp.eq.b32 %p3, 1, 2; xor.pred %p1, %p2, %p3;' + TRUTH, 1),
    'no predicate': ('mov.pred %p2, -1; not.pred %p1, %p2;' + TRUTH, 0),
    'a sum wraps around': ('add.s32 %r3, 2147483647, 1;' + PUT, 0x80000000),
    'a product': ('mul.lo.s32 %r3, 65537, 65536;' + PUT, 65536),
    'a product and a sum': ('mad.lo.s32 %r3, 3, -5, 20;' + PUT, 5),
    'its upper half': ('mul.hi.u64 %rd4, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFD; st.global.b64 [%rd3], %rd4;', -4),
    'its upper half by sign': ('mul.hi.s64 %rd4, -3, 5; st.global.b64 [%rd3], %rd4;', -1),
    'a wide product by sign': ('mul.wide.s32 %rd4, -65536, 65536; st.global.b64 [%rd3], %rd4;', -(2**32)),
    'a wide product without one': ('mul.wide.u32 %rd4, 0xFFFFFFFF, 2; st.global.b64 [%rd3], %rd4;', 2**33 - 2),
    'a wide product and a sum': ('mov.b64 %rd5, 7; mad.wide.s32 %rd4, -2, 4, %rd5; st.global.b64 [%rd3], %rd4;', -1),
    'a product of 64 bits': ('mul.lo.s64 %rd4, 4294967297, -3; st.global.b64 [%rd3], %rd4;', -3 * (2**32 + 1)),
    'a quotient towards 0': ('div.s32 %r3, -7, 2;' + PUT, 2**32 - 3),
    'shifted left': ('shl.b32 %r3, 3, 31;' + PUT, 0x80000000),
    'shifted out': ('shl.b32 %r3, 3, 32;' + PUT, 0),
    'shifted right by sign': ('shr.s32 %r3, -8, 1;' + PUT, 2**32 - 4),
    'shifted right without one': ('shr.u32 %r3, -8, 1;' + PUT, 2**31 - 4),
    'a field': ('bfe.u32 %r3, 0xABCD, 4, 8;' + PUT, 0xBC),
    'a field by sign': ('bfe.s32 %r3, 0xABCD, 4, 8;' + PUT, 0xFFFFFFBC),
    'a field of 64 bits': ('bfe.u64 %rd4, 0xFEDCBA9876543210, 28, 36; st.global.b64 [%rd3], %rd4;', 0xFEDCBA987),
    'a field of 64 bits by sign': ('bfe.s64 %rd4, 0xFEDCBA9876543210, 28, 36; st.global.b64 [%rd3], %rd4;', -0x12345679),
    'a field that ends outside': ('bfe.s32 %r3, 0x80000000, 28, 8;' + PUT, 0xFFFFFFF8),
    'no field': ('bfe.s32 %r3, -1, 4, 0;' + PUT, 0),
    'bytes': ('prmt.b32 %r3, 0x33221100, 0x77665544, 0x7512U;' + PUT, 0x77551122),
    'the sign of a byte': ('prmt.b32 %r3, 0x33F21100, 0, 0x4A20U;' + PUT, 0x00FFF200),
    'bits': ('and.b32 %r4, 0xFF, -16; or.b32 %r4, %r4, 1; xor.b32 %r3, %r4, -1;' + PUT, 0xFFFFFF0E),
    'wider by sign': ('cvt.s64.s32 %rd4, -5; st.global.b64 [%rd3], %rd4;', -5),
    'wider without one': ('cvt.u64.u32 %rd4, 0xFFFFFFFB; st.global.b64 [%rd3], %rd4;', 0xFFFFFFFB),
    'narrower': ('cvt.u32.u64 %r3, 0x123456789; cvt.u16.u32 %rs1, %r3; cvt.u32.u16 %r3, %rs1;' + PUT, 0x6789),
    'the least': ('min.s64 %rd4, -2, 1; st.global.b64 [%rd3], %rd4;', -2),
    'a parameter by sign': ('ld.param.s32 %rd4, [snippet_param_2]; st.global.b64 [%rd3], %rd4;', -7),
    'halves of a register': ('mov.b32 {%rs1, %rs2}, 0x12345678; mov.b32 %r3, {%rs2, %rs1};' + PUT, 0x56781234),
    'the number of a thread': ('mov.u32 %r3, %nctaid.x; add.s32 %r3, %r3, %r0;' + PUT, 1),
}  # fmt: skip


@pytest.mark.parametrize(('body', 'expected'), INTEGERS.values(), ids=INTEGERS)
def test_integers(body, expected):
    assert int(run(body)[0]) == expected


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
def test_conversions_round_to_nearest_even(dtype):
    name = 'f16' if dtype == torch.float16 else 'bf16'
    values = torch.cat(
        [torch.randn(3000), torch.randn(3000) * 1e-6, torch.randn(500) * 1e38, torch.tensor([NAN, INF, -0.0])]
    )
    values = torch.cat([values, values.to(dtype).float(), 1 + torch.arange(64) * 2.0**-12])[: 2 * 3300].view(-1, 2)
    body = f'{TWO} cvt.rn.{name}.f32 %rs1, %r1; cvt.rn.{name}x2.f32 %r3, %r2, %r1; mov.b32 {{%rs2, %rs3}}, %r3;'
    body += f'cvt.f32.{name} %r4, %rs1; cvt.f32.{name} %r5, %rs3; st.global.v2.b32 [%rd3], {{%r4, %r5}};'
    for part in values.split(1024):
        got = torch.from_numpy(run(body, [each.numpy().tobytes() for each in part], threads=1024)).view(torch.float32)
        torch.testing.assert_close(got.view(-1, 2)[: len(part)], part.to(dtype).float(), rtol=0, atol=0, equal_nan=True)


def test_errors_arrive_in_approximate_instructions(monkeypatch):
    bodies = {
        'ex2': 'ex2.approx.ftz.f32 %r3, %r1;',
        'rcp': 'rcp.approx.ftz.f32 %r3, %r1;',
        'div': 'div.full.f32 %r3, %r2, %r1;',
    }
    for name, body in bodies.items():
        exact = of_two(body, 2.0, 2.0)
        monkeypatch.setitem(instructions.ERRORS, name, 2.0**-20)
        assert of_two(body, 2.0, 2.0) == exact * (1 + 2.0**-20)
    monkeypatch.setitem(instructions.ERRORS, 'lg2', 2.0**-20)
    assert of_two('lg2.approx.ftz.f32 %r3, %r1;', 1.0, 0) == 2.0**-20
    assert of_two('lg2.approx.ftz.f32 %r3, %r1;', 4.0, 0) == 2 * (1 + 2.0**-20)


def test_shuffles_and_reductions_of_a_warp():
    lanes = np.arange(64)
    shuffled = run('shfl.sync.bfly.b32 %r3, %r0, 5, 31, -1;' + PUT, threads=64)
    np.testing.assert_array_equal(shuffled, lanes ^ 5)
    np.testing.assert_array_equal(run('shfl.sync.idx.b32 %r3, %r0, 3, 31, -1;' + PUT, threads=64), lanes // 32 * 32 + 3)
    np.testing.assert_array_equal(
        run('sub.s32 %r1, 0, %r0; redux.sync.max.s32 %r3, %r1, -1;' + PUT, threads=64), -(lanes // 32 * 32) % 2**32
    )


def test_shared_memory_and_a_barrier():
    assert run(f'{TO_SHARED} bar.sync 0; {REVERSED} {PUT}', threads=64).tolist() == [*range(63, -1, -1)]


def test_vectors_and_bytes_of_shared_memory():
    body = 'mov.b32 %r4, global_smem; shl.b32 %r5, %r0, 4; add.s32 %r5, %r4, %r5;'
    body += 'st.shared.v4.b32 [%r5], {%r0, 7, 0x1234, 9};'
    assert (run(body + 'ld.shared.v2.b64 {%rd4, %rd5}, [%r5]; st.global.b64 [%rd3], %rd5;') == 9 * 2**32 + 0x1234).all()
    assert (run(body + 'ld.shared.b8 %rs1, [%r5+9]; cvt.u32.u16 %r3, %rs1;' + PUT) == 0x12).all()


@pytest.mark.parametrize('transposed', ('', '.trans'))
def test_matrices_of_shared_memory(transposed):
    """The i-th row of 8 halves lies at 16 i; a thread holds two neighbours of a row or, transposed, of a column."""
    body = 'mov.b32 %r4, global_smem; shl.b32 %r5, %r0, 4; add.s32 %r5, %r4, %r5;'
    body += 'shl.b32 %r6, %r0, 2; add.s32 %r6, %r4, %r6;'
    body += 'shl.b32 %r7, %r0, 1; add.s32 %r8, %r7, 1; shl.b32 %r8, %r8, 16; or.b32 %r7, %r7, %r8;'  # 2 i, 2 i + 1
    fill = ''.join(f'st.shared.b32 [%r6+{at}], %r7;' for at in range(0, 512, 128))
    load = f'ldmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 {{%r3, %r9, %r10, %r11}}, [%r5];'
    lane = np.arange(32)
    first, second = 8 * (lane // 4) + lane % 4 * 2, 8 * (lane // 4) + lane % 4 * 2 + 1
    if transposed:
        first, second = 8 * (lane % 4 * 2) + lane // 4, 8 * (lane % 4 * 2 + 1) + lane // 4
    np.testing.assert_array_equal(run(body + fill + load + PUT), first + 65536 * second)
    store = f'stmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 [%r5], {{%r7, %r7, %r7, %r7}};'
    assert run(body + store + load + PUT).tolist() == run(body + 'mov.b32 %r3, %r7;' + PUT).tolist()


def test_branches_meet_again():
    """Each thread as often through the loop as its number says, one of two ways in it; then the warp shuffles."""
    body = """
        mov.b32 %r3, 0; mov.b32 %r4, 0;
        $again:
        setp.ge.s32 %p1, %r4, %r0;
        @%p1 bra $done;
        and.b32 %r5, %r4, 1;
        setp.eq.b32 %p2, %r5, 0;
        @!%p2 bra $odd;
        add.s32 %r3, %r3, 1;
        bra.uni $on;
        $odd:
        add.s32 %r3, %r3, 100;
        $on:
        add.s32 %r4, %r4, 1;
        bra.uni $again;
        $done:
        bar.sync 0;
        shfl.sync.bfly.b32 %r3, %r3, 31, 31, -1;
    """
    expected = [(i + 1) // 2 + 100 * (i // 2) for i in range(31, -1, -1)]
    assert run(body + PUT).tolist() == expected
