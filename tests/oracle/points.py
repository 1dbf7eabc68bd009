"""What the closed forms of the variants are written with: value and derivative at each logit, and what an error is held to.

p = sigmoid(x), q = 1 - p, y in [0, 1], BCE(p, y) = -y log p - (1 - y) log q. Nothing is differentiated, clamped or branched
by the sign of x, and the arithmetic is numpy's longdouble.

Where terms cancel (p - y, p - clip, 1 - t, a step at p_t = threshold) an error is held to 1e-5 of the sum of the absolute
values of the terms, plus what a relative error of one eps in p would change; a quality target t that is itself computed
(q^gamma, p^k q^(1-k), q^2) may be off by one eps in its exponent too. What they would change is not linearised: the
formula is evaluated there.
"""

from typing import NamedTuple

import numpy as np

from tests.oracle import focal, long, softplus, times


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

    @classmethod
    def of(cls, value, grad) -> 'Point':
        """Of a value and a derivative in which nothing cancels."""
        return cls(value, grad, np.abs(value), np.abs(grad))


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


def sigmoid_focal(x, y, gamma, alpha, function=focal) -> Point:
    """alpha_t (1 - p_t)^gamma BCE(p, y)."""
    point = function(x, y, gamma, alpha)
    through_p = np.where((y == 0) | (y == 1), 0, point.through_p)
    return Point(point.value, point.grad, np.abs(point.value), point.terms, 0.0, through_p)


def either(condition, one: Point, other: Point) -> Point:
    return Point(*(np.where(condition, a, b) for a, b in zip(one, other, strict=True)))


def scaled(factor, point: Point) -> Point:
    """The point times a number that is not negative."""
    return Point(*(factor * each for each in point))


def background(s: Sigmoid, factor, gamma, detached) -> Point:
    """factor p^gamma (-log(1 - p)), p^gamma a constant where it is detached."""
    value = times(factor * s.p**gamma, s.ce_negative)
    return Point.of(value, factor * s.p**gamma * ((0 if detached else gamma * times(s.q, s.ce_negative)) + s.p))


def cross_entropy(s: Sigmoid, t, rest, rounding, weight=1.0) -> Point:
    """weight BCE(p, t), rest = 1 - t, where t is off by `rounding` eps."""
    value = times(weight, s.bce(t, rest))
    grad = weight * s.target_minus(t, rest)
    hard = (t == 0) | (t == 1)
    through = np.where(hard & (rounding == 0), 0, s.p)
    through_value = times(weight * t * rounding, np.where(np.isfinite(s.x), np.abs(s.x), 0))
    return Point(value, grad, value, np.abs(grad), through_value, weight * (through + t * rounding))


def quality(s: Sigmoid, t, rest, rounding, gamma, eps) -> Point:
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
    through_value, through_grad = effect(at, eps)
    if 0 < gamma < 1:  # the derivative has a pole of both signs
        through_grad = np.where(~hard & (np.abs(distance) <= 2 * eps * (s.p + t * rounding)), np.inf, through_grad)
    # Between the two changes that effect() looks at lies p = t, where the value is 0.
    crosses = ~hard & (np.abs(distance) <= eps * (s.p + t * rounding))
    through_value = np.where(crosses, np.maximum(through_value, value / eps), through_value)
    through_entropy = times(t * rounding, np.where(np.isfinite(s.x), np.abs(s.x), 0))
    through_value = through_value + np.abs(distance) ** gamma * through_entropy
    lowered = np.where(distance == 0, 0, gamma * np.abs(distance) ** (gamma - 1))
    through_grad = through_grad + times(lowered * s.p * s.q, through_entropy)
    return Point(value, grad, value, np.abs(grad), through_value, through_grad)


def effect(function, eps):
    """How far each result of a function moves between change 0 and change -eps or eps, over eps."""
    moved = [[np.abs(far - near) for far, near in zip(function(c), function(0), strict=True)] for c in (-eps, eps)]
    return [np.where(np.isfinite(a + b), np.maximum(a, b), 0) / eps for a, b in zip(*moved, strict=True)]


def rounding_of_power(log_t, y):
    """How many eps a power t = exp(log t) is off where its exponent is off by one; none where t is 0 or 1 for sure."""
    return np.where((y == 0) | (y == 1), 0, 1 + np.abs(np.where(np.isfinite(log_t), log_t, 0)))
