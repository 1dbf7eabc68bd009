"""The reference that every backend is held to: the sigmoid focal loss and its derivative, in closed form.

Written from the formulas of arXiv 1708.02002, with p = sigmoid(x) and the miss m = (1 - p) y + p (1 - y):

    L     = a m^gamma B,    a = alpha y + (1 - alpha)(1 - y),    B = -y log p - (1 - y) log(1 - p)
    dL/dx = a m^gamma [gamma (1 - 2 y) s B + p - y],    s = p (1 - p) / m = 1 / (y / p + (1 - y) / (1 - p))

Nothing here is differentiated, clamped or branched by the sign of x. The arithmetic is numpy's longdouble: its range
holds exp(-10000) and its precision outlasts the rounding to float64 that the results end with.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

EPS = float(np.finfo(np.float32).eps)
"""What mmdet adds to avg_factor."""


TORCH_EPS = float(np.float32(1e-12))
"""The least p (1 - p) in the backward of torch's binary_cross_entropy: a float32 constant in every dtype."""


class Point(NamedTuple):
    """The loss, its derivative, and what rounding errors of the derivative of a soft target are measured by.

    terms is the sum of the absolute values of the derivative's two terms, through_p what a relative error of 1 in p
    would change: p - y cancels near p = y, and then one unit in the last place of p is what an error is held to.
    """

    value: np.ndarray
    grad: np.ndarray
    terms: np.ndarray
    through_p: np.ndarray


class Reduced(NamedTuple):
    """A whole call: the loss, its gradient times the upstream one, and the magnitudes that errors are measured by."""

    value: np.ndarray
    grad: np.ndarray
    value_terms: np.ndarray
    grad_terms: np.ndarray
    through_p: np.ndarray


def focal(x, y, gamma=2.0, alpha=0.25) -> Point:
    """The sigmoid focal loss of logits.

    Args:
        x: logits, of any shape; +-inf give the limit, NaN gives NaN.
        y: targets in [0, 1] that broadcast with x.
        gamma: a number >= 0, or an array that broadcasts with x.
        alpha: a number or an array that broadcasts with x; None or negative for no alpha.
    """
    x, y, gamma = long(x), long(y), long(gamma)
    with np.errstate(all='ignore'):
        p, q = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
        entropy = times(y, softplus(-x)) + times(1 - y, softplus(x))
        slope = 1 / (times(y, 1 / p) + times(1 - y, 1 / q))
        modulated = alpha_t(alpha, y) * (y * q + (1 - y) * p) ** gamma
        through_modulation = modulated * gamma * (1 - 2 * y) * np.where(slope == 0, 0, slope * entropy)
        through_entropy = modulated * ((1 - y) * p - y * q)
        return _point(x, y, times(modulated, entropy), through_modulation, through_entropy, modulated * p)


def focal_of_probability(p, y, gamma=2.0, alpha=0.25) -> Point:
    """The sigmoid focal loss of probabilities, and its derivative by the probability.

    As in torch's binary_cross_entropy, which mmdet calls here, the logarithms are clamped at -100 and the derivative of
    the cross-entropy is (p - y) / max(p (1 - p), 1e-12f). At m = 0 the modulation's derivative takes its limit, 0.
    """
    p, y, gamma = long(p), long(y), long(gamma)
    with np.errstate(all='ignore'):
        q = 1 - p
        log_p, log_q = np.maximum(np.log(p), -100), np.maximum(np.log1p(-p), -100)
        entropy = -(y * log_p + (1 - y) * log_q)
        miss = y * q + (1 - y) * p
        alpha = alpha_t(alpha, y)
        modulation = alpha * gamma * (1 - 2 * y) * np.where(miss == 0, 0, miss ** (gamma - 1) * entropy)
        modulated = alpha * miss**gamma
        bound = np.maximum(p * q, TORCH_EPS)
        return _point(p, y, modulated * entropy, modulation, modulated * (p - y) / bound, modulated * p / bound)


def dense_target(labels, num_classes: int) -> np.ndarray:
    """Labels as one-hot rows: all zeros for the background, num_classes, and for anything outside [0, num_classes)."""
    return (array(labels)[..., None] == np.arange(num_classes)).astype(np.float64)


def sigmoid_focal_loss(
    pred,
    target,
    weight=None,
    *,
    gamma=2.0,
    alpha=0.25,
    reduction: str = 'mean',
    avg_factor=None,
    ignore_index=None,
    activated: bool = False,
    upstream=1.0,
) -> Reduced:
    """functional.sigmoid_focal_loss in float64: the same arguments, and the upstream gradient that grad is taken under.

    With 'none' value has pred's shape and upstream may have it too; otherwise both are scalars.
    """
    x, y = array(pred), array(target)
    labels = y.ndim < x.ndim
    dense = dense_target(y, x.shape[-1]) if labels else y
    point = (focal_of_probability if activated else focal)(x, dense, gamma, alpha)
    factor = np.ones(x.shape) if weight is None else spread(array(weight), x.shape)
    keep = np.ones(x.shape, bool)
    if labels and ignore_index is not None:
        keep &= (y != ignore_index)[..., None]
    value, *derivatives = (np.where(keep, factor * each, 0) for each in point)
    scale = scale_of(reduction, avg_factor, x.size)
    grad, terms, through_p = (each * scale * array(upstream) for each in derivatives)
    sizes = np.abs(terms), np.abs(through_p)
    if reduction == 'none':
        return Reduced(value, grad, np.abs(value), *sizes)
    return Reduced(total(value) * scale, grad, total(np.abs(value)) * scale, *sizes)


def rounded(exact, dtype: torch.dtype) -> torch.Tensor:
    """float64 values, correctly rounded (to nearest, ties to even) to dtype in one step.

    torch's own conversion of float64 to a half type goes through float32 and rounds twice.
    """
    exact = np.asarray(exact, dtype=np.float64)
    info = torch.finfo(dtype)
    if dtype == torch.float64:
        return torch.from_numpy(exact.copy())
    with np.errstate(all='ignore'):
        exponent = np.frexp(np.where(np.isfinite(exact), np.maximum(np.abs(exact), info.smallest_normal), 1))[1]
        quantum = np.ldexp(info.eps / 2, exponent)
        nearest = np.rint(exact / quantum) * quantum
        nearest = np.where(np.abs(nearest) > info.max, np.copysign(np.inf, exact), nearest)
    return torch.from_numpy(np.where(np.isfinite(exact), nearest, exact)).to(dtype)


def ulp_distance(a, b, dtype: torch.dtype) -> np.ndarray:
    """How many steps of dtype lie between a and b, each rounded to dtype first; 0 between two NaNs, 2**62 to one."""
    a, b = (
        each if isinstance(each, torch.Tensor) and each.dtype == dtype else rounded(array(each), dtype)
        for each in (a, b)
    )
    steps = np.abs(_ordinal(a) - _ordinal(b))
    a_nan, b_nan = a.isnan().cpu().numpy(), b.isnan().cpu().numpy()
    return np.where(a_nan & b_nan, 0, np.where(a_nan | b_nan, 2**62, steps))


def assert_accurate(actual: torch.Tensor, exact, terms=None, through_p=None, saturates=False) -> None:
    """Holds a result to the promised numerics: relative error 1e-5 in float32, one unit in the last place in halves.

    Args:
        actual: the result.
        exact: the float64 oracle's.
        terms: for results in which terms cancel (soft targets, sums), what the error is relative to instead of |exact|.
        through_p: the oracle's, for the gradients of soft targets.
        saturates: the dtype's largest number stands for anything beyond it, as in the gradients of half probabilities.

    Float64 is held to 1e-12. Results below the smallest normal number may be flushed to zero. NaN and inf must be met.
    """
    dtype = actual.dtype
    exact = np.asarray(exact, dtype=np.float64)
    if saturates:
        exact = exact.clip(-torch.finfo(dtype).max, torch.finfo(dtype).max)
    assert tuple(actual.shape) == exact.shape, f'shape {tuple(actual.shape)} where {exact.shape} is right'
    target = rounded(exact, dtype).double().numpy()
    got = array(actual)
    special = ~np.isfinite(target)
    np.testing.assert_array_equal(got[special], target[special], err_msg='where the exact result is inf or NaN')
    info, arithmetic = torch.finfo(dtype), torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
    error, tiny = np.abs(got - exact), info.smallest_normal
    budget = (1e-12 if dtype == torch.float64 else 1e-5) * (np.abs(exact) if terms is None else array(terms)) + tiny
    if through_p is not None:
        budget = budget + arithmetic.eps * array(through_p)
    if info.bits == 16:
        good = (ulp_distance(actual, exact, dtype) <= 1) | (np.abs(exact) < tiny) & (error <= tiny)
        if terms is not None:
            good |= error <= budget + info.eps * np.abs(exact)
    else:
        good = error <= budget
    bad = np.argwhere(~(good | special))
    assert len(bad) == 0, '\n'.join(
        [f'{len(bad)} of {exact.size} results are off, the first:']
        + [f'  at {tuple(where)}: {got[tuple(where)]!r} where {exact[tuple(where)]!r} is right' for where in bad[:5]]
    )


def long(value) -> np.ndarray:
    return np.asarray(array(value), dtype=np.longdouble)


def array(value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def softplus(z):
    """log(1 + exp(z))."""
    return np.where(z > 0, z, 0) + np.log1p(np.exp(-np.abs(z)))


def times(factor, other):
    """A product in which a factor of exactly 0 wins over inf."""
    return np.where(factor == 0, 0, factor * other)


def alpha_t(alpha, y):
    alpha = long(-1.0 if alpha is None else alpha)
    return np.where(alpha < 0, 1, alpha * y + (1 - alpha) * (1 - y))


def _point(x, y, value, modulation, entropy, through_p) -> Point:
    unknown = np.isnan(x) | np.isnan(y)
    parts = value, modulation + entropy, np.abs(modulation) + np.abs(entropy), through_p
    return Point(*(np.where(unknown, np.nan, each).astype(np.float64) for each in parts))


def spread(weight: np.ndarray, shape) -> np.ndarray:
    """A weight in any of its forms, as one number per logit. (N,) is one number per row, also where N = C."""
    rows = shape[:-1]
    for form, view in ((shape, shape), (rows, (*rows, 1)), ((*rows, 1), (*rows, 1))):
        if weight.shape == tuple(form):
            return np.broadcast_to(weight.reshape(view), shape)
    if weight.ndim == len(shape) and weight.shape[-1] == shape[-1] and set(weight.shape[:-1]) == {1}:
        return np.broadcast_to(weight, shape)
    return weight.reshape(shape)


def scale_of(reduction: str, avg_factor, size: int) -> float:
    if reduction != 'mean':
        return 1.0
    return 1.0 / max(size, 1) if avg_factor is None else 1.0 / (float(avg_factor) + EPS)


def total(values: np.ndarray) -> np.ndarray:
    flat = values.ravel()
    return np.asarray(math.fsum(flat) if np.isfinite(flat).all() else flat.sum())


def _ordinal(value: torch.Tensor) -> np.ndarray:
    """Integers in the order of the floats, one per step; both zeros are 0."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
    bits = value.detach().cpu().contiguous().view(integer).long().numpy()
    return np.where(bits < 0, -(bits & (2 ** (8 * value.element_size() - 1) - 1)), bits)
