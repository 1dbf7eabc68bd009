"""Stand-ins for the interpreted primitives, off by as much as the bounds of a GPU's instructions allow.

ERRORS: of exp2 and the reciprocal relative, of log2 relative and, near 1, absolute.
"""

import triton
import triton.language as tl

ERRORS = {'exp2': 0.0, 'log2': 0.0, 'reciprocal': 0.0}


@triton.jit
def _flushed(x):
    return tl.where(tl.abs(x) < 1.1754943508222875e-38, x * 0.0, x)


@triton.jit
def exp2(x):
    return _flushed(tl.exp2(x) * (1.0 + ERRORS['exp2']))


@triton.jit
def log2(x):
    exact = tl.log2(x)
    return exact + ERRORS['log2'] * tl.where((x > 0.5) & (x < 2.0), 1.0, exact)


@triton.jit
def reciprocal(x):
    return _flushed((1.0 + ERRORS['reciprocal']) / x)


@triton.jit
def reciprocal_by_two(x):
    # Two products with neighbours are rounded beside the instruction's own error.
    return _flushed((1.0 + 2 * ERRORS['reciprocal']) / x)


@triton.jit
def poisoned(x):
    return x * float('nan')
