"""Whole calls of the variants in the oracle's arithmetic, from the closed form of each (tests/variants)."""

import math

import numpy as np

from tests.oracle import EPS, array, dense_target, long, scale_of, spread, total
from tests.oracle.points import Point
from tests.variants import VARIANTS


def point_of(name, x, y, positive=None, *, eps=EPS, probabilities=False, **parameters) -> Point:
    """One variant at each logit; positive says which targets are positives whatever y, by default those above 0."""
    x, y = np.broadcast_arrays(long(x), long(y))
    positive = y > 0 if positive is None else positive
    function = VARIANTS[name].point_of_probability if probabilities else VARIANTS[name].point
    parameters = {
        key: each if each is None or isinstance(each, str) else long(each) for key, each in parameters.items()
    }
    with np.errstate(all='ignore'):
        point = function(x, y, positive, long(eps), **parameters)
        unknown = np.isnan(x) | np.isnan(y)
        return Point(*(np.where(unknown, np.nan, each) for each in point))


def variant_loss(
    name,
    pred,
    target,
    weight=None,
    *,
    reduction='mean',
    avg_factor=None,
    ignore_index=None,
    upstream=1.0,
    eps=EPS,
    probabilities=False,
    **parameters,
) -> Point:
    """A whole call of a variant: the loss, its gradient times the upstream one, and the magnitudes of both.

    target holds labels, labels and scores in a tuple, or dense values. Losses of rows sum over the classes: 'none' gives
    one number per row, 'mean' divides by the rows.
    """
    variant, x = VARIANTS[name], array(pred)
    labels, score = target if isinstance(target, tuple) else (target, None)
    y = labels = array(labels)
    keep, positive = np.ones(x.shape, bool), None
    if labels.ndim < x.ndim:
        y = dense_target(labels, x.shape[-1])
        positive = y == 1
        if score is not None:
            y = y * array(score)[..., None]
        if ignore_index is not None:
            keep &= (labels != ignore_index)[..., None]
    factor = long(np.ones(x.shape) if weight is None else spread(array(weight), x.shape))
    if variant.factor_of_label is not None:
        known = np.where(labels == ignore_index, 0, labels)
        factor = factor * variant.factor_of_label(known, **parameters)[..., None]
    point = point_of(name, x, y, positive, eps=eps, probabilities=probabilities, **parameters)
    point = Point(*(np.where(keep, factor * each, 0).astype(np.float64) for each in point))
    scale = scale_of(reduction, avg_factor, math.prod(x.shape[:-1]) if variant.per_row else x.size)
    upstream = array(upstream)
    if variant.per_row and reduction == 'none':
        upstream = upstream[..., None]
    value = point.value, point.value_terms, point.value_through_p
    if reduction != 'none':
        value = (total(each) * scale for each in value)
    elif variant.per_row:
        value = (each.sum(-1) for each in value)
    value, value_terms, value_through_p = value
    grad, grad_terms, grad_through_p = (
        each * scale * upstream for each in (point.grad, point.grad_terms, point.grad_through_p)
    )
    return Point(value, grad, value_terms, np.abs(grad_terms), value_through_p, np.abs(grad_through_p))


def statistics(name, pred, target, weight=None, **arguments) -> np.ndarray:
    """(2, C): sums of |dL/dx| of the positives and of the negatives of each class, the upstream gradient out."""
    grad = np.abs(variant_loss(name, pred, target, weight, **arguments).grad)
    classes = grad.shape[-1]
    labels = array(target)
    positive = dense_target(labels, classes) == 1 if labels.ndim < grad.ndim else labels > 0
    sums = [np.where(chosen, grad, 0).reshape(-1, classes).sum(0) for chosen in (positive, ~positive)]
    return np.stack(sums)
