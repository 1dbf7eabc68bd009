"""What the instructions without memory or control compute, on arrays of a lane a thread.

A register holds unsigned integers of its width. An operand's type says how they are taken: half types are computed in
float32 and rounded, which is exact for one operation, and packed pairs are arrays of two columns.
"""

import functools
import operator

import numpy as np

ERRORS = {'ex2': 0.0, 'lg2': 0.0, 'rcp': 0.0, 'div': 0.0}
"""Relative errors put into the approximate instructions; near 1, in (0.5, 2), that of lg2 is absolute."""

TINY = np.float32(1.1754943508222875e-38)  # the smallest normal number
PLAIN = {
    'pred': np.bool_, 'b8': np.uint8, 'b16': np.uint16, 'b32': np.uint32, 'b64': np.uint64, 'u8': np.uint8, 'u16': np.uint16,
    'u32': np.uint32, 'u64': np.uint64, 's8': np.int8, 's16': np.int16, 's32': np.int32, 's64': np.int64, 'f32': np.float32,
    'f64': np.float64,
}  # fmt: skip
HALVES = ('f16', 'bf16')
PAIRS = {'f32x2': 'f32', 'f16x2': 'f16', 'bf16x2': 'bf16'}
FLOATS = ('f32', 'f64', *HALVES, *PAIRS)
WIDTHS = {name: np.dtype(each).itemsize for name, each in PLAIN.items()}
WIDTHS |= {'f16': 2, 'bf16': 2, 'f16x2': 4, 'bf16x2': 4, 'f32x2': 8}
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class UnknownInstruction(Exception):
    pass


def taken(bits: np.ndarray, kind: str) -> np.ndarray:
    """A register's bits as values of a type."""
    if kind == 'pred':
        return bits
    bits = bits.astype(UNSIGNED[WIDTHS[kind]], copy=False)
    if kind in PAIRS:
        one = PAIRS[kind]
        return taken(np.ascontiguousarray(bits).view(UNSIGNED[WIDTHS[one]]), one).reshape(-1, 2)
    if kind == 'f16':
        return bits.view(np.float16).astype(np.float32)
    if kind == 'bf16':
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits.view(PLAIN[kind])


def given(values: np.ndarray, kind: str) -> np.ndarray:
    """Values of a type as a register's bits, rounded to nearest, ties to even."""
    if kind == 'pred':
        return values
    if kind in PAIRS:
        halves = np.ascontiguousarray(given(values, PAIRS[kind]))
        return halves.view(UNSIGNED[WIDTHS[kind]]).reshape(-1)
    if kind == 'f16':
        return values.astype(np.float16).view(np.uint16)
    if kind == 'bf16':
        bits = values.astype(np.float32).view(np.uint32)
        rounded = (bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) >> np.uint32(16)
        return np.where(np.isnan(values), np.uint16(0x7FFF), rounded.astype(np.uint16))
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


def _extreme(least: bool, propagates: bool, a, b):
    """The least or greatest; unlike numpy's, -0 is less than 0."""
    function = (np.minimum if least else np.maximum) if propagates else (np.fmin if least else np.fmax)
    result = function(a, b)
    if result.dtype != np.float32:
        return result
    zeros = (a == 0) & (b == 0)
    if zeros.any():
        negative = (np.signbit(a) | np.signbit(b)) if least else (np.signbit(a) & np.signbit(b))
        result = np.where(zeros, np.where(negative, np.float32(-0.0), np.float32(0)), result)
    return result


def _xorsign(function, a, b):
    """The extreme of the sizes, with the product's sign."""
    size = function(np.abs(a), np.abs(b))
    return np.where(np.signbit(a) ^ np.signbit(b), -size, size)


def _approximate(name: str, x):
    """In float64, rounded, off by the error that is put in; subnormal numbers are 0 before and after."""
    wide = flushed(x).astype(np.float64)
    if name == 'lg2':
        exact = np.log2(wide)
        error = ERRORS['lg2'] * np.where((wide > 0.5) & (wide < 2), 1.0, np.where(np.isfinite(exact), exact, 0))
        return flushed((exact + error).astype(np.float32))
    exact = np.exp2(wide) if name == 'ex2' else 1 / wide
    return flushed((exact * (1 + ERRORS[name])).astype(np.float32))


def _divided(a, b):
    if a.dtype != np.float32:  # towards 0, and all bits set where b is 0
        wide, divisor = a.astype(np.int64), np.where(b == 0, 1, b).astype(np.int64)
        quotient = np.abs(wide) // np.abs(divisor) * np.sign(wide) * np.sign(divisor)
        return np.where(b == 0, -1, quotient).astype(a.dtype)
    return ((a.astype(np.float64) / b) * (1 + ERRORS['div'])).astype(np.float32)


def _wide(a, b):
    wider = {'i4': np.int64, 'u4': np.uint64, 'i2': np.int32, 'u2': np.uint32}[a.dtype.str[1:]]
    return a.astype(wider) * b.astype(wider)


def _high(a, b):
    """The upper half of the product."""
    if a.dtype.itemsize < 8:
        return (_wide(a, b) >> (8 * a.dtype.itemsize)).astype(a.dtype)
    x, y, low, half = a.view(np.uint64), b.view(np.uint64), np.uint64(0xFFFFFFFF), np.uint64(32)
    middle = (x >> half) * (y & low) + ((x & low) * (y & low) >> half)
    other = (x & low) * (y >> half) + (middle & low)
    high = (x >> half) * (y >> half) + (middle >> half) + (other >> half)
    if a.dtype == np.int64:
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return high.view(a.dtype)


def _shifted(left: bool, a, by):
    """By the operand's width or more, everything is shifted out."""
    width = 8 * a.dtype.itemsize
    some = np.minimum(by, width - 1).astype(a.dtype)
    result = a << some if left else a >> some
    return np.where(by < width, result, a >> np.array(width - 1, a.dtype) if a.dtype.kind == 'i' else a.dtype.type(0))


def _field(a, position, length):
    """Bits of a, extended by their sign where a is signed."""
    start, count = np.minimum(position & 255, 63).astype(np.int64), np.minimum(length & 255, 32).astype(np.int64)
    bits = a.astype(np.int64) >> start & ((np.int64(1) << count) - 1)
    if a.dtype.kind == 'i':
        bits = np.where((count > 0) & (bits >> np.maximum(count - 1, 0) & 1 == 1), bits - (np.int64(1) << count), bits)
    return bits.astype(a.dtype)


def _permuted(a, b, selector):
    """Bytes of (b, a), the lowest of which is a's first, or copies of their sign."""
    both, result = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32), np.uint64(0)
    for i in range(4):
        nibble = selector.astype(np.uint64) >> np.uint64(4 * i) & np.uint64(15)
        byte = both >> ((nibble & np.uint64(7)) * np.uint64(8)) & np.uint64(255)
        byte = np.where(nibble > 7, (byte >> np.uint64(7)) * np.uint64(255), byte)
        result = result | byte << np.uint64(8 * i)
    return result.astype(np.uint32)


COMPARISONS = {'eq': operator.eq, 'ne': operator.ne, 'lt': operator.lt, 'le': operator.le, 'gt': operator.gt,
               'ge': operator.ge, 'lo': operator.lt, 'ls': operator.le, 'hi': operator.gt, 'hs': operator.ge}  # fmt: skip


def comparison(name: str, kind: str):
    """Of floats, one with NaN is false; with a u behind its name it is true."""
    if kind not in FLOATS:
        return COMPARISONS[name]
    unordered = lambda a, b: np.isnan(a) | np.isnan(b)  # noqa: E731
    if name in ('nan', 'num'):
        return unordered if name == 'nan' else lambda a, b: ~unordered(a, b)
    compare = COMPARISONS[name.removesuffix('u')]
    if name.endswith('u'):
        return lambda a, b: compare(a, b) | unordered(a, b)
    return lambda a, b: compare(a, b) & ~unordered(a, b)


LOGIC = {'and': operator.and_, 'or': operator.or_, 'xor': operator.xor, 'not': operator.invert}
WIDER = {'s16': 's32', 'u16': 'u32', 's32': 's64', 'u32': 'u64'}


def _converted(target: str, source: str, modifiers: set[str]):
    if target in ('f16x2', 'bf16x2') and source == 'f32' and modifiers == {'rn'}:  # the first operand is the upper half
        return (lambda high, low: np.stack(np.broadcast_arrays(low, high), -1)), target, (source, source)
    to_float, of_float = target in FLOATS, source in FLOATS
    narrows = to_float and (not of_float or WIDTHS[target] < WIDTHS[source])
    if (of_float and not to_float) or modifiers != ({'rn'} if narrows else set()):
        raise UnknownInstruction
    if to_float:
        return (lambda a: a.astype(np.float32)), target, (source,)
    return (lambda a: a.astype(PLAIN[target])), target, (source,)


@functools.cache
def meaning(opcode: str):
    """(function, the result's type, the operands' types) of an opcode; raises UnknownInstruction."""
    name, *modifiers = opcode.split('.')
    kinds = [each for each in modifiers if each in WIDTHS]
    kind, flags = kinds[-1] if kinds else '', {each for each in modifiers if each not in WIDTHS}
    floating = kind in FLOATS
    if name == 'cvt' and len(kinds) == 2:
        return _converted(*kinds, flags)
    if name == 'setp' and len(flags) == 1:
        return comparison(next(iter(flags)), kind), 'pred', (kind, kind)
    flushes = floating and 'ftz' in flags and name not in ('ex2', 'lg2', 'rcp')
    flags -= {'ftz'} if floating else set()
    mixed = len(kinds) == 2 and kinds[0] == 'f32' and kind in HALVES and name in ('add', 'sub')
    if len(kinds) != 1 and not mixed:
        raise UnknownInstruction
    result, operands = kinds[0], (kind, kinds[0])
    if name in ('add', 'sub') and flags <= ({'rn'} if floating else set()):
        function = operator.add if name == 'add' else operator.sub
    elif name == 'mul' and floating and flags <= {'rn'}:
        function = operator.mul
    elif name in ('mul', 'mad') and not floating and len(flags) == 1 and flags < {'lo', 'hi', 'wide'}:
        product = {'lo': operator.mul, 'hi': _high, 'wide': _wide}[flags.pop()]
        result = WIDER[kind] if product is _wide else kind
        function = product if name == 'mul' else lambda a, b, c: product(a, b) + c
        operands = operands if name == 'mul' else (kind, kind, result)
    elif name == 'fma' and floating and flags == {'rn'}:
        function, operands = fma, (kind,) * 3
    elif name in ('neg', 'abs') and not flags and (floating or kind[0] == 's'):
        function, operands = operator.neg if name == 'neg' else np.abs, (kind,)
    elif name in ('min', 'max') and flags in (set(), {'NaN'}, {'NaN', 'xorsign', 'abs'}):
        extreme = functools.partial(_extreme, name == 'min', 'NaN' in flags)
        function = functools.partial(_xorsign, extreme) if 'abs' in flags else extreme
    elif name in ('ex2', 'lg2', 'rcp') and flags == {'approx'} and 'ftz' in modifiers and kind == 'f32':
        function, operands = functools.partial(_approximate, name), (kind,)
    elif name == 'div' and flags == ({'full'} if floating else set()) and kind in ('f32', 's32', 'u32'):
        function = _divided
    elif name in LOGIC and not flags and (kind == 'pred' or kind[0] == 'b'):
        function, operands = LOGIC[name], (kind,) * (1 if name == 'not' else 2)
    elif name in ('shl', 'shr') and not flags:
        function, operands = functools.partial(_shifted, name == 'shl'), (kind, 'u32')
    elif name == 'bfe' and not flags and kind in ('u32', 's32'):
        function, operands = _field, (kind, 'u32', 'u32')
    elif name == 'prmt' and not flags and kind == 'b32':
        function, operands = _permuted, (kind,) * 3
    elif name == 'selp' and not flags:
        kind = 'b' + str(8 * WIDTHS[kind])  # bits are chosen, not computed with
        function, result, operands = (lambda a, b, p: np.where(p, a, b)), kind, (kind, kind, 'pred')
    else:
        raise UnknownInstruction
    return (_flushing(function) if flushes else function), result, operands


def _flushing(function):
    return lambda *values: flushed(function(*map(flushed, values)))
