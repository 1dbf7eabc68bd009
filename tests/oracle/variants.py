"""The references of the other variants: value and derivative in closed form, as oracle.py has them for the focal loss.

p = sigmoid(x), q = 1 - p, y in [0, 1], BCE(p, y) = -y log p - (1 - y) log q. Nothing is differentiated, clamped or branched
by the sign of x, and the arithmetic is numpy's longdouble.

Where terms cancel (p - y, p - clip, 1 - t, a step at p_t = threshold) an error is held to 1e-5 of the sum of the absolute
values of the terms, plus what a relative error of one eps in p would change; a quality target t that is itself computed
(q^gamma, p^k q^(1-k), q^2) may be off by one eps in its exponent too. What they would change is not linearised: the
formula is evaluated there.
"""

import math
from typing import NamedTuple

import numpy as np

from tests.oracle import (
    EPS,
    TORCH_EPS,
    alpha_t,
    array,
    dense_target,
    focal,
    focal_of_probability,
    long,
    scale_of,
    softplus,
    spread,
    times,
    total,
)


class Point(NamedTuple):
    """Loss and derivative at each logit, and for each of them the two magnitudes that its error is measured by.

    The terms are sums of absolute values; through_p is what one eps of p would change, over eps.
    """

    value: np.ndarray
    grad: np.ndarray
    value_terms: np.ndarray
    grad_terms: np.ndarray
    value_through_p: np.ndarray | float = 0.0
    grad_through_p: np.ndarray | float = 0.0


class Sigmoid:
    """What a logit gives."""

    def __init__(self, x):
        self.x = long(x)
        self.p, self.q = 1 / (1 + np.exp(-self.x)), 1 / (1 + np.exp(self.x))
        self.ce_positive, self.ce_negative = softplus(-self.x), softplus(self.x)
        self.log_p, self.log_q = -self.ce_positive, -self.ce_negative

    def bce(self, y, rest):
        """Cross-entropy with y, rest = 1 - y."""
        return times(y, self.ce_positive) + times(rest, self.ce_negative)

    def target_minus(self, y, rest):
        """p - y, without cancellation where y is 0 or 1."""
        return self.p * rest - self.q * y


def sigmoid_focal(x, y, positive, eps, gamma, alpha, function=focal) -> Point:
    point = function(x, y, gamma, alpha)
    through_p = np.where((y == 0) | (y == 1), 0, point.through_p)
    return Point(point.value, point.grad, np.abs(point.value), point.terms, 0.0, through_p)


def sigmoid_focal_of_probability(p, y, positive, eps, gamma, alpha) -> Point:
    return sigmoid_focal(p, y, positive, eps, gamma, alpha, focal_of_probability)


def focal_star(x, y, positive, eps, gamma, beta, alpha) -> Point:
    """a softplus(-z) / gamma, z = gamma x_t + beta, x_t = x (2 y - 1)."""
    a = alpha_t(alpha, y)
    z = gamma * times(2 * y - 1, x) + beta
    slope = -a * (2 * y - 1) / (1 + np.exp(z))
    value = times(a, softplus(-z)) / gamma
    # z of a soft target is rounded where 2 y - 1 and the sum are: p^gamma, in effect.
    rounding = np.where((y == 0) | (y == 1) | ~np.isfinite(x), 0, np.abs(gamma * x) + beta)
    through_value, through_slope = a / (1 + np.exp(z)) * rounding / gamma, np.abs(slope) / (1 + np.exp(-z)) * rounding
    return Point(value, slope, value, np.abs(slope), through_value, through_slope)


def quality_focal(x, y, positive, eps, beta) -> Point:
    """|p - y|^beta BCE(p, y)."""
    return _quality(Sigmoid(x), y, 1 - y, 0.0, beta, eps)


def quality_focal_of_probability(p, y, positive, eps, beta) -> Point:
    """The same of probabilities: logarithms and p (1 - p) end where torch's binary_cross_entropy has them end."""
    q, distance = 1 - p, p - y
    entropy = times(y, np.minimum(-np.log(p), 100)) + times(1 - y, np.minimum(-np.log1p(-p), 100))

    def at(change):
        d = distance + change * p
        size = np.abs(d)
        through_modulation = np.where(size == 0, 0, beta * size ** (beta - 1)) * entropy
        through_entropy = size**beta * d / np.maximum(p * q, TORCH_EPS)
        return size**beta * entropy, np.sign(d) * through_modulation + through_entropy

    (value, grad), (off, grad_off) = at(0), _effect(at, eps)
    if 0 < beta < 1:
        grad_off = np.where(np.abs(distance) <= 2 * eps * p, np.inf, grad_off)
    return Point(value, grad, value, np.abs(grad), off, grad_off)


def varifocal(x, y, positive, eps, alpha, gamma, iou_weighted, detach_weight) -> Point:
    """y BCE(p, y) where y > 0, without iou_weighted BCE(p, y); alpha p^gamma BCE(p, 0) elsewhere, labels of score 0 too."""
    positive = y > 0
    s = Sigmoid(x)
    weight = y if iou_weighted else np.ones_like(y)
    attracted = _cross_entropy(s, y, 1 - y, 0.0, weight)
    return _either(positive, attracted, _background(s, alpha, gamma, detach_weight))


def gaussian_focal(x, y, positive, eps, alpha, gamma, pos_weight, neg_weight) -> Point:
    """(1 - p)^alpha (-log p) where y = 1, else (1 - y)^gamma p^alpha (-log(1 - p)); of logits."""
    s = Sigmoid(x)
    modulating, ce = s.q**alpha, s.ce_positive
    attracted = pos_weight * times(modulating, ce)
    attraction = -pos_weight * modulating * (alpha * times(s.p, ce) + s.q)
    attracted = Point(attracted, attraction, attracted, np.abs(attraction))
    return _either(y == 1, attracted, _background(s, neg_weight * (1 - y) ** gamma, alpha, False))


def gaussian_focal_of_probability(p, y, positive, eps, alpha, gamma, pos_weight, neg_weight) -> Point:
    """As mmdet, whose logarithms are of p + 1e-12 and 1 - p + 1e-12; the derivative is by the probability.

    Whether 1e-12 vanishes beside a p above 1e-6, as it does in float32, is left open.
    """
    attracted = _clipped_power(1 - p, p, alpha, pos_weight, -1, eps)
    repelled = _clipped_power(p, 1 - p, alpha, neg_weight * (1 - y) ** gamma, 1, eps)
    return _either(y == 1, attracted, repelled)


def matchability_aware(x, y, positive, eps, gamma, mal_alpha) -> Point:
    """BCE(p, y^gamma) of a positive, mal_alpha p^gamma BCE(p, 0) of a negative, p^gamma a constant."""
    s = Sigmoid(x)
    log_y = np.log(y)
    log_t = times(long(gamma), log_y)
    attracted = _cross_entropy(s, np.exp(log_t), -np.expm1(log_t), _rounding_of_power(log_t, y))
    return _either(positive, attracted, _background(s, mal_alpha, gamma, True))


def iou_aware_bce(x, y, positive, eps, k, gamma, detach_weight) -> Point:
    """BCE(p, t) of a positive, t = max(p^k y^(1-k), .01) a constant; p^gamma BCE(p, 0) of a negative."""
    s = Sigmoid(x)
    log_t = times(long(k), s.log_p) + times(long(1 - k), np.log(y))
    floor = log_t < np.log(long(0.01))
    t = np.where(floor, long(0.01), np.exp(log_t))
    rest = np.where(floor, long(0.99), -np.expm1(log_t))
    sure = (k == 0) & (y == 1)
    attracted = _cross_entropy(s, t, rest, np.where(sure, 0, np.where(floor, 1, 1 + np.abs(log_t))))
    return _either(positive, attracted, _background(s, 1, gamma, detach_weight))


def position_supervised(x, y, positive, eps, alpha, gamma, normalize) -> Point:
    """alpha |p - t|^gamma BCE(p, t) of a positive, t = y^2 or y^2 / max y^2; (1 - alpha) p^gamma BCE(p, 0) of a negative."""
    s = Sigmoid(x)
    t = y**2
    if normalize == 'batch':
        t = t / (t.max(initial=0) + long(1e-8))
    hard = (t == 0) | (t == 1)
    attracted = _quality(s, t, 1 - t, np.where(hard, 0, 1), gamma, eps)
    return _either(positive, Point(*(alpha * each for each in attracted)), _background(s, 1 - alpha, gamma, False))


def equalized_focal(x, y, positive, eps, gamma, alpha, scale, ratio) -> Point:
    """(gamma_j / gamma) times the focal loss with gamma_j = gamma + scale (1 - ratio_j)."""
    own = gamma + scale * (1 - long(ratio))
    point = sigmoid_focal(x, y, positive, eps, own, alpha)
    return Point(*(own / gamma * each for each in point))


def class_balanced_focal(x, y, positive, eps, gamma) -> Point:
    """The focal loss without alpha; its factor a row is row_factors'."""
    return sigmoid_focal(x, y, positive, eps, gamma, None)


def poly_focal(x, y, positive, eps, epsilon, gamma, alpha, alpha_on_poly) -> Point:
    """The focal loss + epsilon (1 - p_t)^(gamma + 1), with alpha_on_poly times alpha_t."""
    s, base = Sigmoid(x), sigmoid_focal(x, y, positive, eps, gamma, alpha)
    factor = epsilon * (alpha_t(alpha, y) if alpha_on_poly else np.ones_like(y))
    miss = y * s.q + (1 - y) * s.p
    term = factor * miss ** (gamma + 1)
    slope = factor * (gamma + 1) * miss**gamma * (1 - 2 * y) * s.p * s.q
    return Point(
        base.value + term,
        base.grad + slope,
        base.value_terms + np.abs(term),
        base.grad_terms + np.abs(slope),
        0.0,
        base.grad_through_p,
    )


def asymmetric(x, y, positive, eps, gamma_pos, gamma_neg, clip, detach_weight) -> Point:
    """y (1 - p)^gamma_pos (-log p) + (1 - y) p_m^gamma_neg (-log(1 - p_m)), p_m = max(p - clip, 0)."""
    s, clip = Sigmoid(x), long(clip)
    through = 0 if detach_weight else 1
    attracted = times(s.q**gamma_pos, s.ce_positive)
    attraction = -(s.q**gamma_pos) * (through * gamma_pos * times(s.p, s.ce_positive) + s.q)

    def repelled(change):
        shifted = np.maximum(s.p * (1 + change) - clip, 0)
        if clip == 0 and change == 0:
            ce, odds = s.ce_negative, s.p  # p q / (1 - p_m)
        else:
            ce, odds = -np.log1p(-shifted), s.p * s.q / (1 - shifted)
        inside = shifted > 0
        power = np.where(inside, shifted ** (gamma_neg - 1), 0) * times(s.p * s.q, ce)
        slope = through * gamma_neg * power + shifted**gamma_neg * odds
        return times(shifted**gamma_neg, ce), np.where(inside, slope, 0)

    value, slope = repelled(0)
    off = (0, 0) if clip == 0 else _effect(repelled, eps)
    rest = 1 - y
    return Point(
        times(y, attracted) + times(rest, value),
        y * attraction + rest * slope,
        times(y, attracted) + times(rest, value),
        y * np.abs(attraction) + rest * slope,
        rest * off[0],
        rest * off[1],
    )


def reduced_focal(x, y, positive, eps, threshold, gamma, alpha) -> Point:
    """BCE where p_t < threshold, else ((1 - p_t) / threshold)^gamma BCE; with alpha times alpha_t."""
    s, threshold = Sigmoid(x), long(threshold)
    plain = sigmoid_focal(x, y, positive, eps, 0.0, alpha)
    eased = Point(*(each / threshold**gamma for each in sigmoid_focal(x, y, positive, eps, gamma, alpha)))
    # p_t - threshold, exact for a hard target even where p_t rounds to the threshold
    edge = np.log(threshold) - np.log1p(-threshold)
    soft = (y > 0) & (y < 1)
    short = np.where(soft, s.p * y + s.q * (1 - y) - threshold, np.where(y > 0.5, s.x, -s.x) - edge)
    chosen = _either(short < 0, plain, eased)
    step = soft & (np.abs(short) <= eps * s.p)
    return chosen._replace(
        value_through_p=np.where(step, np.abs(plain.value - eased.value) / eps, 0),
        grad_through_p=chosen.grad_through_p + np.where(step, np.abs(plain.grad - eased.grad) / eps, 0),
    )


POINTS = {
    'focal': sigmoid_focal,
    'focal_star': focal_star,
    'quality_focal': quality_focal,
    'varifocal': varifocal,
    'gaussian_focal': gaussian_focal,
    'matchability_aware': matchability_aware,
    'iou_aware_bce': iou_aware_bce,
    'position_supervised': position_supervised,
    'equalized_focal': equalized_focal,
    'class_balanced_focal': class_balanced_focal,
    'poly_focal': poly_focal,
    'asymmetric': asymmetric,
    'reduced_focal': reduced_focal,
}
POINTS_OF_PROBABILITIES = {
    'focal': sigmoid_focal_of_probability,
    'quality_focal': quality_focal_of_probability,
    'gaussian_focal': gaussian_focal_of_probability,
}
PER_ROW = ('quality_focal', 'matchability_aware', 'iou_aware_bce', 'position_supervised')


def point_of(name, x, y, positive=None, *, eps=EPS, probabilities=False, **parameters) -> Point:
    """One variant at each logit; positive says which targets are positives whatever y, by default those above 0."""
    x, y = np.broadcast_arrays(long(x), long(y))
    positive = y > 0 if positive is None else positive
    function = (POINTS_OF_PROBABILITIES if probabilities else POINTS)[name]
    parameters = {
        key: each if each is None or isinstance(each, str) else long(each) for key, each in parameters.items()
    }
    with np.errstate(all='ignore'):
        point = function(x, y, positive, long(eps), **parameters)
        unknown = np.isnan(x) | np.isnan(y)
        return Point(*(np.where(unknown, np.nan, each) for each in point))


def row_factors(labels, samples_per_class, class_beta) -> np.ndarray:
    """The class-balanced loss's: (1 - b) / (1 - b^n), normalised to the sum C; 1 for the background."""
    count, beta = long(samples_per_class), long(class_beta)
    with np.errstate(divide='ignore'):
        factors = (1 - beta) / -np.expm1(count * np.log(beta))
    factors = factors * len(count) / factors.sum()
    return np.append(factors, 1)[array(labels)]


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

    target holds labels, labels and scores in a tuple, or dense values. The losses of PER_ROW sum over the classes: 'none'
    gives one number a row, 'mean' divides by the rows.
    """
    x = array(pred)
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
    if name == 'class_balanced_focal':
        samples = parameters.pop('samples_per_class'), parameters.pop('class_beta')
        known = np.where(labels == ignore_index, 0, labels)
        factor = factor * row_factors(known, *samples)[..., None]
    point = point_of(name, x, y, positive, eps=eps, probabilities=probabilities, **parameters)
    point = Point(*(np.where(keep, factor * each, 0).astype(np.float64) for each in point))
    per_row = name in PER_ROW
    scale = scale_of(reduction, avg_factor, math.prod(x.shape[:-1]) if per_row else x.size)
    upstream = array(upstream)
    if per_row and reduction == 'none':
        upstream = upstream[..., None]
    value = point.value, point.value_terms, point.value_through_p
    if reduction != 'none':
        value = (total(each) * scale for each in value)
    elif per_row:
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


def _either(condition, one: Point, other: Point) -> Point:
    return Point(*(np.where(condition, a, b) for a, b in zip(one, other, strict=True)))


def _clipped_power(wrong, right, alpha, factor, sign, eps) -> Point:
    """factor wrong^alpha (-log(right + 1e-12)), right = 1 - wrong; the derivative of wrong by p is sign."""

    def with_clip(clip):
        ce = np.where(wrong < 0.5, -np.log1p(clip - wrong), -np.log(right + clip))
        power = np.where((wrong == 0) & (alpha < 1), 0, wrong ** (alpha - 1) * ce)
        return factor * wrong**alpha * ce, sign * factor * (alpha * power + wrong**alpha / (right + clip))

    clip = long(1e-12)
    value, grad = with_clip(clip)
    without = with_clip(np.where(right > 1e-6, 0, clip))
    through = (np.abs(a - b) / eps for a, b in zip((value, grad), without, strict=True))
    return Point(value, grad, np.abs(value), np.abs(grad), *through)


def _background(s: Sigmoid, factor, gamma, detached) -> Point:
    """factor p^gamma (-log(1 - p)), p^gamma a constant where it is detached."""
    value = times(factor * s.p**gamma, s.ce_negative)
    grad = factor * s.p**gamma * ((0 if detached else gamma * times(s.q, s.ce_negative)) + s.p)
    return Point(value, grad, value, grad)


def _cross_entropy(s: Sigmoid, t, rest, rounding, weight=1.0) -> Point:
    """weight BCE(p, t), rest = 1 - t, where t is off by `rounding` eps."""
    value = times(weight, s.bce(t, rest))
    grad = weight * s.target_minus(t, rest)
    hard = (t == 0) | (t == 1)
    through = np.where(hard & (rounding == 0), 0, s.p)
    through_value = times(weight * t * rounding, np.where(np.isfinite(s.x), np.abs(s.x), 0))
    return Point(value, grad, value, np.abs(grad), through_value, weight * (through + t * rounding))


def _quality(s: Sigmoid, t, rest, rounding, gamma, eps) -> Point:
    """|p - t|^gamma BCE(p, t), where t is off by `rounding` eps and BCE by -x times that; the derivative at p = t
    is 0."""
    entropy = s.bce(t, rest)
    slope = times(s.p * s.q, entropy)
    distance = s.target_minus(t, rest)
    hard = (t == 0) | (t == 1)

    def at(change):
        d = distance + change * np.where(hard, 0, s.p + t * rounding)
        size = np.abs(d)
        through_modulation = np.where(size == 0, 0, gamma * size ** (gamma - 1)) * slope
        return times(size**gamma, entropy), np.sign(d) * through_modulation + size**gamma * d

    value, grad = at(0)
    through_value, through_grad = _effect(at, eps)
    if 0 < gamma < 1:  # the derivative has a pole of both signs
        through_grad = np.where(~hard & (np.abs(distance) <= 2 * eps * (s.p + t * rounding)), np.inf, through_grad)
    # Between the two changes that _effect looks at lies p = t, where the value is 0.
    crosses = ~hard & (np.abs(distance) <= eps * (s.p + t * rounding))
    through_value = np.where(crosses, np.maximum(through_value, value / eps), through_value)
    through_entropy = times(t * rounding, np.where(np.isfinite(s.x), np.abs(s.x), 0))
    through_value = through_value + np.abs(distance) ** gamma * through_entropy
    lowered = np.where(distance == 0, 0, gamma * np.abs(distance) ** (gamma - 1))
    through_grad = through_grad + times(lowered * s.p * s.q, through_entropy)
    return Point(value, grad, value, np.abs(grad), through_value, through_grad)


def _effect(function, eps):
    """How far each result of a function moves between change 0 and change -eps or eps, over eps."""
    moved = [[np.abs(far - near) for far, near in zip(function(c), function(0), strict=True)] for c in (-eps, eps)]
    return [np.where(np.isfinite(a + b), np.maximum(a, b), 0) / eps for a, b in zip(*moved, strict=True)]


def _rounding_of_power(log_t, y):
    """How many eps a power t = exp(log t) is off where its exponent is off by one; none where t is 0 or 1 for sure."""
    return np.where((y == 0) | (y == 1), 0, 1 + np.abs(np.where(np.isfinite(log_t), log_t, 0)))
