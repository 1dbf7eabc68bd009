"""What the instructions without memory or control compute, on arrays of a lane per thread.

A register holds unsigned integers of its width. An operand's type says how they are taken: half types are computed in
float32 and rounded, which is exact for one operation, and packed pairs are arrays of two columns.
"""

import functools
import operator
import re

import numpy as np

from tests.gpu.memory import UNSIGNED

ERRORS = {'ex2': 0.0, 'lg2': 0.0, 'rcp': 0.0, 'div': 0.0}
"""Relative errors put into the approximate instructions; near 1, in (0.5, 2), that of lg2 is absolute."""

TINY = np.float32(1.1754943508222875e-38)  # the smallest normal number
PLAIN = {'pred': np.dtype(bool), 'f32': np.dtype(np.float32), 'f64': np.dtype(np.float64)}
PLAIN |= {f'{kind}{8 * n}': np.dtype(f'{"i" if kind == "s" else "u"}{n}') for kind in 'bus' for n in UNSIGNED}
PAIRS = {'f16x2': 'f16', 'bf16x2': 'bf16'}
WIDTHS = {name: each.itemsize for name, each in PLAIN.items()} | {'f16': 2, 'bf16': 2, 'f16x2': 4, 'bf16x2': 4}


class UnknownInstruction(Exception):
    pass


def taken(bits: np.ndarray, kind: str) -> np.ndarray:
    """A register's bits as values of a type."""
    if kind == 'pred':
        return bits
    bits = bits.astype(UNSIGNED[WIDTHS[kind]], copy=False)
    if kind in PAIRS:
        return taken(np.ascontiguousarray(bits).view(np.uint16), PAIRS[kind]).reshape(-1, 2)
    if kind == 'f16':
        return bits.view(np.float16).astype(np.float32)
    if kind == 'bf16':
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits.view(PLAIN[kind])


def given(values: np.ndarray, kind: str) -> np.ndarray:
    """Values of a type as a register's bits, rounded to nearest, ties to even; there is one NaN, as on a GPU."""
    if kind == 'pred':
        return values
    if kind in PAIRS:
        return np.ascontiguousarray(given(values, PAIRS[kind])).view(np.uint32).reshape(-1)
    if kind == 'f16':
        return values.astype(np.float16).view(np.uint16)
    if kind == 'bf16':
        bits = values.astype(np.float32).view(np.uint32)
        rounded = (bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) >> np.uint32(16)
        return np.where(np.isnan(values), np.uint16(0x7FFF), rounded.astype(np.uint16))
    if kind == 'f32':
        bits = values.astype(np.float32, copy=False).view(np.uint32)
        unordered = np.isnan(values)
        return np.where(unordered, np.uint32(0x7FFFFFFF), bits) if unordered.any() else bits
    return values.astype(PLAIN[kind], copy=False).view(UNSIGNED[WIDTHS[kind]])


def flushed(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < TINY, np.copysign(np.float32(0), x), x)


def fma(a, b, c):
    """a b + c, rounded once: the product of two float32 is exact in float64, and their sum is rounded to odd there.

    Rounding it to nearest twice would differ where the sum in float64 lies between two neighbours in float32, or is
    subnormal there; anywhere else nothing is to be done.
    """
    product, c = a.astype(np.float64) * b, c.astype(np.float64)
    total = np.atleast_1d(product + c)
    bits = total.view(np.int64)
    between = ((bits & 0x1FFFFFFF) == 0x10000000) | ((np.abs(total) < TINY) & (total != 0))
    if between.any():
        part = total - product  # Knuth's two-sum
        error = (product - (total - part)) + (c - part)
        step = np.where((error > 0) == (total > 0), 1, -1)
        inexact = between & (error != 0) & (bits & 1 == 0) & np.isfinite(total)
        total = np.where(inexact, bits + step, bits).view(np.float64)
    return total.astype(np.float32)


def _flushing(a, b, c):
    return flushed(fma(flushed(a), flushed(b), flushed(c)))


def _extreme(function, a, b):
    """The least or greatest; unlike numpy's, -0 is less than 0."""
    result = function(a, b)
    if result.dtype == np.float32:
        negative = np.signbit(function(np.copysign(np.float32(1), a), np.copysign(np.float32(1), b)))
        result = np.where((a == 0) & (b == 0), np.where(negative, np.float32(-0.0), np.float32(0)), result)
    return result


def _xorsign(function, a, b):
    """The extreme of the sizes, with the product's sign."""
    size = function(np.abs(a), np.abs(b))
    return np.where(np.signbit(a) ^ np.signbit(b), -size, size)


def _approximate(name: str, x):
    """In float64, rounded, off by the error that is put in; subnormal numbers are 0 before and after."""
    wide = flushed(x).astype(np.float64)
    exact = {'ex2': np.exp2, 'lg2': np.log2, 'rcp': np.reciprocal}[name](wide)
    near_1 = (name == 'lg2') & (wide > 0.5) & (wide < 2)
    return flushed(
        (exact + ERRORS[name] * np.where(near_1, 1.0, np.where(np.isfinite(exact), exact, 0))).astype(np.float32)
    )


def _quotient(a, b, name='div'):
    return ((a.astype(np.float64) / b) * (1 + ERRORS[name])).astype(np.float32)


def _whole_quotient(a, b):
    """Towards 0; all bits set where b is 0."""
    wide, divisor = a.astype(np.int64), np.where(b == 0, 1, b).astype(np.int64)
    quotient = np.abs(wide) // np.abs(divisor) * np.sign(wide) * np.sign(divisor)
    return np.where(b == 0, -1, quotient).astype(a.dtype)


def _wide(a, b):
    wider = np.dtype(f'{a.dtype.kind}{2 * a.dtype.itemsize}')
    return a.astype(wider) * b.astype(wider)


def _high(a, b):
    """The upper half of the product, in Python's integers."""
    return (a.astype(object) * b.astype(object) >> 8 * a.dtype.itemsize).astype(a.dtype)


def _shifted(function, a, by):
    """By the operand's width or more, everything is shifted out."""
    most = 8 * a.dtype.itemsize - 1
    return function(function(a, np.minimum(by, most).astype(a.dtype)), (by > most).astype(a.dtype))


def _field(a, position, length):
    """Bits of a, extended by their sign where a is signed."""
    width = 8 * a.dtype.itemsize
    above = width - np.minimum(length & 255, width)
    moved = _shifted(operator.lshift, _shifted(operator.rshift, a, position & 255), above)
    return _shifted(operator.rshift, moved, above)


def _bits(a):
    """A column for each bit, the highest first."""
    return np.unpackbits(a.astype('>u4').view(np.uint8).reshape(-1, 4), axis=1)


def _reversed(a):
    return np.packbits(_bits(a)[:, ::-1], axis=1).view('>u4')[:, 0].astype(np.uint32)


def _leading_zeros(a):
    """All bits set where a is 0."""
    return np.where(a == 0, 0xFFFFFFFF, _bits(a).argmax(1)).astype(np.uint32)


def _inserted(a, b, position, length):
    """The lowest bits of a in b, from a position on."""
    start, count = (np.minimum(each & 255, 32).astype(np.int64) for each in (position, length))
    ones = (np.int64(1) << count) - 1 << start & 0xFFFFFFFF
    return (b.astype(np.int64) & ~ones | a.astype(np.int64) << start & ones).astype(np.uint32)


def _permuted(a, b, selector):
    """Bytes of (b, a), the lowest of which is a's first, or copies of their sign."""
    a, b, selector = np.broadcast_arrays(a, b, selector)
    nibbles = selector[:, None] >> np.arange(0, 16, 4, dtype=np.uint32) & 15
    chosen = np.take_along_axis(np.stack([a, b], -1).view(np.uint8), nibbles & 7, 1)
    return np.where(nibbles > 7, (chosen >> 7) * 255, chosen).astype(np.uint8).view(np.uint32)[:, 0]


def _compared(name: str):
    """Floats: with NaN it is false; with a u behind its name it is true."""
    unordered = lambda a, b: np.isnan(a) | np.isnan(b)  # noqa: E731
    if name in ('nan', 'num'):
        return unordered if name == 'nan' else lambda a, b: ~unordered(a, b)
    compare = getattr(operator, name.removesuffix('u'))
    if name.endswith('u'):
        return lambda a, b: compare(a, b) | unordered(a, b)
    return lambda a, b: compare(a, b) & ~unordered(a, b)


EXTREMES = {'min': np.fmin, 'max': np.fmax, 'min.NaN': np.minimum, 'max.NaN': np.maximum}
WIDER = {'16': '32', '32': '64'}
OPCODES = {  # (function, result's type, operands' types) of the parts of an opcode
    r'(add|sub)(?:\.rn)?\.(f32|[su]\d+)': lambda name, kind: (getattr(operator, name), *[kind] * 3),
    r'(?:mul|mul\.lo)\.(f32|[su]\d+)': lambda kind: (operator.mul, *[kind] * 3),
    r'mul\.hi\.([su]\d+)': lambda kind: (_high, *[kind] * 3),
    r'mul\.wide\.([su])(\d+)': lambda sign, n: (_wide, sign + WIDER[n], *[sign + n] * 2),
    r'mad\.lo\.([su]\d+)': lambda kind: ((lambda a, b, c: a * b + c), *[kind] * 4),
    r'mad\.wide\.([su])(\d+)': lambda sign, n: (
        (lambda a, b, c: _wide(a, b) + c), sign + WIDER[n], *[sign + n] * 2, sign + WIDER[n]
    ),
    r'fma\.rn\.f32': lambda: (fma, *['f32'] * 4),
    r'fma\.rn\.ftz\.f32': lambda: (_flushing, *['f32'] * 4),
    r'(neg|abs)\.(f32|b?f16(?:x2)?|s\d+)': lambda name, kind: (getattr(operator, name), kind, kind),
    r'(min|max)\.([su]\d+)': lambda name, kind: (EXTREMES[name], *[kind] * 3),
    r'((?:min|max)(?:\.NaN)?)\.f32': lambda name: (functools.partial(_extreme, EXTREMES[name]), *['f32'] * 3),
    r'(min|max)\.NaN\.xorsign\.abs\.f32': lambda name: (
        functools.partial(_xorsign, EXTREMES[name + '.NaN']), *['f32'] * 3
    ),
    r'(ex2|lg2|rcp)\.approx\.ftz\.f32': lambda name: (functools.partial(_approximate, name), 'f32', 'f32'),
    r'rcp\.approx\.f32': lambda: ((lambda x: _quotient(np.float32(1), x, 'rcp')), 'f32', 'f32'),
    r'div\.full\.f32': lambda: (_quotient, *['f32'] * 3),
    r'div\.rn\.f32': lambda: ((lambda a, b: (a.astype(np.float64) / b).astype(np.float32)), *['f32'] * 3),
    r'div\.([su]32)': lambda kind: (_whole_quotient, *[kind] * 3),
    r'rem\.([su]32)': lambda kind: ((lambda a, b: a - _whole_quotient(a, b) * b), *[kind] * 3),
    r'(and|or|xor)\.(pred|b\d+)': lambda name, kind: (getattr(operator, f'__{name}__'), *[kind] * 3),
    r'not\.(pred|b\d+)': lambda kind: (operator.invert, kind, kind),
    r'shl\.(b\d+)': lambda kind: (functools.partial(_shifted, operator.lshift), kind, kind, 'u32'),
    r'shr\.([su]\d+)': lambda kind: (functools.partial(_shifted, operator.rshift), kind, kind, 'u32'),
    r'bfe\.([su](?:32|64))': lambda kind: (_field, kind, kind, 'u32', 'u32'),
    r'brev\.b32': lambda: (_reversed, 'b32', 'b32'),
    r'bfind\.shiftamt\.u32': lambda: (_leading_zeros, 'u32', 'u32'),
    r'bfi\.b32': lambda: (_inserted, *['b32'] * 3, 'u32', 'u32'),
    r'prmt\.(b32)': lambda kind: (_permuted, *[kind] * 4),
    r'selp\.[bfsu](\d+)': lambda n: ((lambda a, b, p: np.where(p, a, b)), *[f'b{n}'] * 3, 'pred'),
    r'setp\.(eq|ne|lt|le|gt|ge)\.([bsu]\d+)': lambda name, kind: (getattr(operator, name), 'pred', kind, kind),
    r'setp\.(num|nan|(?:eq|ne|lt|le|gt|ge)u?)\.(f32|b?f16|b?f16x2)': lambda name, kind: (
        _compared(name), 'pred', kind, kind
    ),
    r'cvt\.([su]\d+)\.([su]\d+)': lambda to, of: ((lambda a: a.astype(PLAIN[to])), to, of),
    r'cvt\.rn\.(f32)\.([su]\d+)': lambda to, of: ((lambda a: a.astype(np.float32)), to, of),
    r'cvt\.rn\.(f32)\.(f64)': lambda to, of: ((lambda a: a), to, of),
    r'cvt\.(f32)\.(b?f16)': lambda to, of: ((lambda a: a), to, of),
    r'cvt\.rn\.(b?f16)\.(f32)': lambda to, of: ((lambda a: a), to, of),
    # the first operand is the upper half
    r'cvt\.rn\.(b?f16x2)\.(f32)': lambda to, of: (
        (lambda high, low: np.stack(np.broadcast_arrays(low, high), -1)), to, of, of
    ),
}  # fmt: skip


@functools.cache
def meaning(opcode: str):
    """(function, the result's type, the operands' types) of an opcode; raises UnknownInstruction."""
    for pattern, parts in OPCODES.items():
        match = re.fullmatch(pattern, opcode)
        if match is not None:
            function, result, *operands = parts(*match.groups())
            return function, result, operands
    raise UnknownInstruction
