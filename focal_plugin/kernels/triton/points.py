"""The point functions of the variants, as the kernels call them."""

from __future__ import annotations
import functools
from typing import Any

import triton
import triton.language as tl

from focal_plugin.kernels.problem import Problem
from focal_plugin.kernels.triton import features, terms
from focal_plugin.kernels.triton import primitives as prim
from focal_plugin.lazy import resolve
from focal_plugin.math import SPECS


@functools.lru_cache(maxsize=None)
def point_function(name: str):
    """The compiled point function of a variant."""
    function = SPECS[name].value_and_grad
    resolve(function.__globals__)
    return features.constant(triton.jit(function))


def constants(problem: Problem, gradient: bool) -> dict[str, Any]:
    """The compile-time arguments that every kernel has."""
    per_class = problem.per_class_parameters
    return {
        'FN': point_function(problem.variant),
        'PARAMETERS': len(problem.parameters) if per_class is None else per_class.size(0),
        'EXPONENT': problem.exponent,
        'PER_CLASS': per_class is not None,
        'HAS_AVG': problem.avg_factor is not None,
        'HAS_IGNORE': problem.ignore_index is not None,
        'VANISHES': problem.vanishes,
        'GRADIENT': gradient,
        'OUTPUT': problem.output,
    }


def numbers(problem: Problem) -> dict[str, float]:
    """The numbers that every kernel has."""
    parameters = [*problem.parameters, *[0.0] * 6][:6]
    return {'ignore_index': problem.ignore_index or 0, **{f'p{k}': value for k, value in enumerate(parameters)}}


@triton.jit
def at_parameters(
    x, p, q, log_p, log_q, y, is_positive, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, HARD: tl.constexpr, PER_CLASS: tl.constexpr,
):  # fmt: skip
    """(value, derivative) of the variant: its parameters are numbers, or PER_CLASS."""
    if PER_CLASS:
        col, mask = tl.broadcast(col, mask)  # a load does not, in Triton 3.1
        p0 = tl.load(per_class_ptr + col, mask=mask, other=0.0)
        if PARAMETERS > 1:
            p1 = tl.load(per_class_ptr + C + col, mask=mask, other=0.0)
        if PARAMETERS > 2:
            p2 = tl.load(per_class_ptr + 2 * C + col, mask=mask, other=0.0)
        if PARAMETERS > 3:
            p3 = tl.load(per_class_ptr + 3 * C + col, mask=mask, other=0.0)
        if PARAMETERS > 4:
            p4 = tl.load(per_class_ptr + 4 * C + col, mask=mask, other=0.0)
        if PARAMETERS > 5:
            p5 = tl.load(per_class_ptr + 5 * C + col, mask=mask, other=0.0)
    if PARAMETERS == 1:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, EXPONENT, HARD)
    elif PARAMETERS == 2:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, EXPONENT, HARD)
    elif PARAMETERS == 3:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, p2, EXPONENT, HARD)
    elif PARAMETERS == 4:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, p2, p3, EXPONENT, HARD)
    elif PARAMETERS == 5:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, p2, p3, p4, EXPONENT, HARD)
    else:
        return FN(x, p, q, log_p, log_q, y, is_positive, p0, p1, p2, p3, p4, p5, EXPONENT, HARD)


@triton.jit
def point(
    x, y, is_positive, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, HARD: tl.constexpr, PER_CLASS: tl.constexpr,
    ACTIVATED: tl.constexpr, EPSILON: tl.constexpr, GRADIENT: tl.constexpr, VANISHES: tl.constexpr,
):  # fmt: skip
    """(value, derivative by what the caller passed) of the variant; the derivative where GRADIENT.

    VANISHES: a factor of the loss may be 0.
    """
    if ACTIVATED:
        x, p, q, log_p, log_q = terms.terms_of_probability(x, EPSILON)
    else:
        given = x
        if GRADIENT or VANISHES:
            # Far beyond where every derivative is constant: an infinite logit would meet a 0.
            x = prim.clamp(x, 1e30)
        x, p, q, log_p, log_q = prim.terms_of_logit(x)
    value, derivative = at_parameters(
        x, p, q, log_p, log_q, y, is_positive, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
        FN, PARAMETERS, EXPONENT, HARD, PER_CLASS,
    )  # fmt: skip
    if ACTIVATED:
        if GRADIENT:
            derivative *= terms.outer_derivative_of_probability(p, q, y, EPSILON)
    elif GRADIENT or VANISHES:
        value = prim.limit(value, given)
    return value, derivative


@triton.jit
def negative_point(
    x, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, PER_CLASS: tl.constexpr, ACTIVATED: tl.constexpr,
    EPSILON: tl.constexpr, PRECISE: tl.constexpr, VALUE: tl.constexpr, GRADIENT: tl.constexpr, VANISHES: tl.constexpr,
    PLAIN_SUM: tl.constexpr,
):  # fmt: skip
    """The same where the target is 0, known at compile time; the value where VALUE."""
    y = tl.zeros(x.shape, tl.float32)
    is_positive = tl.zeros(x.shape, tl.int1)
    if ACTIVATED or EXPONENT < 0:
        return point(
            x, y, is_positive, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
            FN, PARAMETERS, EXPONENT, True, PER_CLASS, ACTIVATED, EPSILON, GRADIENT, VANISHES,
        )  # fmt: skip
    given = x
    if GRADIENT or VANISHES:
        x = prim.clamp(x, 1e30)
    x, p, q, log_p, log_q = terms.terms_of_negative(x, PRECISE, VALUE, GRADIENT, PLAIN_SUM)
    value, derivative = at_parameters(
        x, p, q, log_p, log_q, y, is_positive, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
        FN, PARAMETERS, EXPONENT, True, PER_CLASS,
    )  # fmt: skip
    if GRADIENT or VANISHES:
        value = prim.limit(value, given)
    return value, derivative


@triton.jit
def dense_point(
    x, target, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
    FN: tl.constexpr, PARAMETERS: tl.constexpr, EXPONENT: tl.constexpr, PER_CLASS: tl.constexpr, ACTIVATED: tl.constexpr,
    EPSILON: tl.constexpr, PRECISE: tl.constexpr, VALUE: tl.constexpr, GRADIENT: tl.constexpr, VANISHES: tl.constexpr,
    MOSTLY_ZERO: tl.constexpr, PLAIN_SUM: tl.constexpr,
):  # fmt: skip
    """The same of dense targets as they are stored; MOSTLY_ZERO: those of a tile may be all 0, which makes it negatives."""
    y = target.to(tl.float32)
    is_positive = ~(y <= 0)  # NaN is no negative
    if not MOSTLY_ZERO:
        return point(
            x, y, is_positive, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
            FN, PARAMETERS, EXPONENT, False, PER_CLASS, ACTIVATED, EPSILON, GRADIENT, VANISHES,
        )  # fmt: skip
    if prim.any_not_zero(target):
        value, derivative = point(
            x, y, is_positive, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
            FN, PARAMETERS, EXPONENT, False, PER_CLASS, ACTIVATED, EPSILON, GRADIENT, VANISHES,
        )  # fmt: skip
    else:
        value, derivative = negative_point(
            x, per_class_ptr, col, mask, C, p0, p1, p2, p3, p4, p5,
            FN, PARAMETERS, EXPONENT, PER_CLASS, ACTIVATED, EPSILON, PRECISE, VALUE, GRADIENT, VANISHES, PLAIN_SUM,
        )  # fmt: skip
    return value, derivative
