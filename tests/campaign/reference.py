"""What a call must give, in the words of a specification; the losses themselves are those of the oracles.

1. A row whose label is ignore_index gives a loss and gradients of exactly 0, whatever logits, weights, scores and upstream
   gradients hold there. The same holds for the channels that a mask loss does not read.
2. A score is that of its row's label; that of a background row is never looked at.
3. Targets and scores are taken in the dtype of the arithmetic (float32 for half logits); what lies above 1 by a few units in
   the last place is 1.
4. NaN in a logit, a target, a positive's score or a weight gives NaN in its element's loss and gradient, and so in the sums
   that it enters: no exponent and no weight of 0 silences it. It gives no other element NaN, but over a softmax
   those of its row.
5. An infinite logit gives the limit. A factor that is exactly 0 (a weight, alpha or 1 - alpha, mal_alpha, loss_weight)
   leaves 0 of an infinite loss. Gradients by logits have finite limits.
6. 'mean' divides the sum by the number of elements (of rows, for losses that sum each row), or by avg_factor + eps of
   float32; 'none' ignores avg_factor. Nothing gives 0.
7. normalize='batch' divides by the largest target among the positives that are not ignored, NaN where one of those is NaN.

Each result comes with `terms`, the sum of the absolute values that it is a sum of, and `slack`, an absolute error that is
allowed besides: one unit in the last place of p where that is what cancellation leaves, and results that underflow.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from tests.campaign import slack
from tests.campaign.call import Call
from tests.campaign.softmax import softmax_point
from tests.campaign.tensors import in_memory
from tests.campaign.variants import VARIANTS
from tests.oracle import EPS, array, long, spread
from tests.oracle.points import Point
from tests.oracle.variants import point_of


class Exact(NamedTuple):
    """A result and what its error is measured by, of one shape."""

    value: np.ndarray
    terms: np.ndarray
    slack: np.ndarray

    def map(self, function) -> 'Exact':
        return Exact(*(function(each) for each in self))


class Expected(NamedTuple):
    loss: Exact
    grad: Exact
    by_weight: Exact | None
    by_avg_factor: Exact | None
    statistics: Exact | None


def product(a, b):
    """a b, where a factor of exactly 0 silences an infinity; a NaN stays."""
    a, b = long(a), long(b)
    with np.errstate(all='ignore'):
        silent = (a == 0) & np.isinf(b) | (b == 0) & np.isinf(a)
        return np.where(silent, 0, a * b)


def expected(call: Call) -> Expected:
    if call.variant == 'mask_focal':
        return _of_masks(call)
    read = _Read.of(call)
    return _reduced(call, read, _rowwise(call, read) if call.variant == 'softmax_focal' else _elementwise(call, read))


class _Read(NamedTuple):
    """What a call reads, as arrays of pred's shape: harmless numbers stand where nobody looks."""

    x: np.ndarray
    y: np.ndarray
    positive: np.ndarray
    kept: np.ndarray
    weight: np.ndarray
    balance: np.ndarray | float
    labels: np.ndarray | None

    @property
    def factor(self) -> np.ndarray:
        return product(self.weight, self.balance)

    @classmethod
    def of(cls, call: Call) -> '_Read':
        x = long(in_memory(call.pred))
        shape = x.shape
        factor = np.ones(shape) if call.weight is None else spread(array(in_memory(call.weight)), shape)
        target, score = call.target if isinstance(call.target, tuple) else (call.target, None)
        if target.dim() == len(shape):
            y = target_values(target, call.arithmetic)
            return cls(x, y, y > 0, np.ones(shape, bool), long(factor), 1.0, None)
        labels = array(target).astype(np.int64)
        ignored = np.zeros(labels.shape, bool) if call.ignore_index is None else labels == int(call.ignore_index)
        kept = np.broadcast_to(~ignored[..., None], shape)
        positive = kept & (labels[..., None] == np.arange(shape[-1]))
        y = positive.astype(np.longdouble)
        if score is not None:
            y = np.where(positive, target_values(score, call.arithmetic)[..., None], 0)
        balance = 1.0
        if call.spec.factor_of_label is not None:
            known = np.where(ignored, 0, labels)
            balance = call.spec.factor_of_label(known, **call.spec.complete(call.given))[..., None]
        return cls(np.where(kept, x, 0), y, positive, kept, np.where(kept, long(factor), 0), balance, labels)


def target_values(target: torch.Tensor, dtype: torch.dtype) -> np.ndarray:
    return np.minimum(long(in_memory(target).to(dtype)), 1)


def _elementwise(call: Call, read: _Read) -> Point:
    return point(call.variant, read.x, read.y, read.positive, call, call.spec.complete(call.given))


def point(variant: str, x, y, positive, call: Call, given: dict) -> Point:
    """The oracle's point, with the limits of rule 5 and the underflow that is allowed."""
    given = {name: _without_sign(name, each) for name, each in given.items()}
    info = torch.finfo(call.arithmetic)
    roundings = 4 if given.get('normalize') == 'batch' else 1  # of a target that is a quotient and a square
    eps = roundings * info.eps
    exact = point_of(variant, x, y, positive, eps=eps, probabilities=call.probabilities, **given)
    unknown = np.isnan(x) | np.isnan(y) | _of_unknown_batch(given, y, positive)
    silent = VARIANTS[variant].silent
    silent = np.zeros(y.shape, bool) if silent is None else silent(y, positive, given) & ~unknown
    exact = Point(*(np.where(silent, 0, each) for each in exact))
    assert np.array_equal(np.isnan(exact.value), unknown)
    tiny = info.smallest_normal
    # p or 1 - p is below the normal numbers; by a probability the derivative is p over the 1e-12 of torch.
    flushed = x < tiny if call.probabilities else np.abs(x) > -math.log(tiny)
    # Vectors over the classes are powers of up to 10, whose factors the native kernel flushes to 0 where they underflow.
    flushed |= slack.has_vectors(variant, given)
    value_slack = slack.allowed(exact.value, exact.value_through_p, flushed, tiny, eps)
    grad_slack = slack.allowed(exact.grad, exact.grad_through_p, flushed, tiny, eps)
    if call.probabilities:
        # p q stops at 1e-12 in derivatives, and of the modulating factor's, which is no larger, nothing is promised there.
        damped = (x < 1e-12) & (np.abs(exact.grad) < 1)
        grad_slack += np.where(damped, np.abs(exact.grad) + tiny, 0)
        if variant == 'gaussian_focal':  # whether 1 - p + 1e-12 is more than 1 is left open
            value_slack += 4e-12 * (1 + np.abs(exact.value))
            grad_slack += np.where(x < 1e-6, 4e-12, 0)
    return exact._replace(value_through_p=tiny + value_slack, grad_through_p=tiny + grad_slack)


def _without_sign(name: str, value):
    """A negative alpha is none; a vector is one number per class."""
    if name == 'alpha' and isinstance(value, (int, float)) and value < 0:
        return None
    return array(value) if isinstance(value, (list, torch.Tensor)) else value


def _of_unknown_batch(given, y, positive):
    """Positives whose largest target is NaN."""
    return positive & (given.get('normalize') == 'batch' and bool(np.isnan(y).any()))


def _rowwise(call: Call, read: _Read) -> Point:
    """The loss of a row stands at its label's element, so that sums of rows are those of the other losses."""
    given = call.spec.complete(call.given)
    info = torch.finfo(call.arithmetic)
    labels = np.where(read.kept[..., 0], read.labels, 0)
    vectors = {name: _without_sign(name, each) for name, each in given.items()}
    value, grad, terms = softmax_point(read.x, labels, vectors['gamma'], vectors['alpha'])
    absolute = np.full(grad.shape, 64 * info.smallest_normal)
    value_at = labels[..., None] == np.arange(read.x.shape[-1])
    value = np.where(value_at, value[..., None], 0)
    return Point(value, grad, np.abs(value), terms, absolute, absolute)


def _reduced(call: Call, read: _Read, point: Point) -> Expected:
    """Weights, sums, the reduction, the upstream gradient."""
    factor, kept = read.factor, read.kept
    rows = math.prod(read.x.shape[:-1])
    scale = product(_scale(call, rows if call.spec.per_row else read.x.size), call.loss_weight)
    unweighted = Exact(point.value, point.value_terms, point.value_through_p)
    value = _times(unweighted, factor, kept)
    loss = _summed(call, value).map(lambda each: product(each, scale))
    upstream = _spread_upstream(call, read.x.shape)
    grad = Exact(point.grad, point.grad_terms, point.grad_through_p)
    direct = _times(grad, product(factor, scale), kept)
    if slack.has_vectors(call.variant, call.given):
        lost = slack.flushed(grad.value, factor, scale, torch.finfo(call.arithmetic).smallest_normal)
        direct = direct._replace(slack=direct.slack + np.where(lost, np.abs(direct.value), 0))
    by_weight = by_avg_factor = statistics = None
    if 'weight' in call.requires:
        by_weight = _folded(
            _times(unweighted, product(product(scale, read.balance), upstream), kept), call.weight.shape, read.x.shape
        )
    if 'avg_factor' in call.requires:
        by_avg_factor = _by_avg_factor(call, loss)
    if call.statistics:
        statistics = _statistics(direct, read.positive)
    return Expected(loss, _times(direct, upstream, kept), by_weight, by_avg_factor, statistics)


def _times(exact: Exact, factor, kept) -> Exact:
    """Multiplied, and 0 in ignored rows (rule 1)."""
    factor = np.broadcast_to(long(factor), kept.shape)
    value = np.where(kept, product(exact.value, factor), 0)
    return Exact(value, *(np.where(kept, product(np.abs(each), np.abs(factor)), 0) for each in exact[1:]))


def _scale(call: Call, count: int) -> float:
    if call.reduction != 'mean':
        return 1.0
    return 1 / max(count, 1) if call.avg_factor is None else 1 / (float(call.avg_factor) + EPS)


def _summed(call: Call, exact: Exact) -> Exact:
    with np.errstate(invalid='ignore'):
        if call.reduction == 'none':
            return exact.map(lambda each: each.sum(-1)) if call.spec.per_row else exact
        return exact.map(lambda each: each.sum().reshape(call.output_shape))


def _spread_upstream(call: Call, shape):
    upstream = long(in_memory(call.upstream))
    if call.reduction == 'none':
        return upstream[..., None] if call.spec.per_row else upstream
    return upstream.reshape(())


def _folded(exact: Exact, weight_shape, shape) -> Exact:
    """The gradient of a weight: sums over what it was spread over."""
    places = spread(np.arange(math.prod(weight_shape)).reshape(weight_shape), shape).ravel()

    def fold(each):
        sums = np.zeros(math.prod(weight_shape), np.longdouble)
        np.add.at(sums, places, np.asarray(each).ravel())
        return sums.reshape(weight_shape)

    return exact.map(fold)


def _by_avg_factor(call: Call, loss: Exact) -> Exact:
    """-L / (avg_factor + eps) times the upstream gradient."""
    by = long(in_memory(call.upstream)) / (float(call.avg_factor) + EPS) if call.reduction == 'mean' else long(0)
    if call.reduction != 'mean':
        return Exact(*(np.zeros(call.avg_factor.shape),) * 3)
    return Exact(product(-loss.value, by), product(loss.terms, abs(by)), product(loss.slack, abs(by)))


def _statistics(direct: Exact, positive) -> Exact:
    """(2, C): the absolute gradients without the upstream one, of positives and of negatives, class by class."""
    rows = tuple(range(positive.ndim - 1))

    def sums(each):
        return np.stack([np.where(chosen, np.abs(each), 0).sum(rows) for chosen in (positive, ~positive)])

    return direct.map(sums)


def _of_masks(call: Call) -> Expected:
    """The focal loss of each instance's own channel, the mean over its pixels; other channels get 0."""
    pred, shape = in_memory(call.pred), tuple(call.pred.shape)
    n, picks = shape[0], call.target.dim() < call.pred.dim()
    index = (slice(None),)
    if picks:
        channel = torch.zeros(n, dtype=torch.int64) if call.labels is None else call.labels.long()
        index = (np.arange(n), array(channel))
        pred = pred[torch.arange(n), channel]
    pixels = math.prod(pred.shape[1:])
    flat = lambda each: each.reshape(n, pixels)  # noqa: E731
    x, y = flat(long(pred)), flat(target_values(call.target, call.arithmetic))
    weight = None if call.weight is None else array(in_memory(call.weight))
    by_row = (n, 1) if weight is not None and weight.ndim == 1 else (n, pixels)
    factor = np.broadcast_to(1.0 if weight is None else weight.reshape(by_row), (n, pixels))
    read = _Read(x, y, y > 0, np.ones(x.shape, bool), long(factor), 1 / long(max(pixels, 1)), None)
    requires = tuple(name for name in call.requires if name == 'avg_factor')
    inner = _Inner(call, requires)
    exact = _reduced(inner, read, point('focal', x, y, y > 0, call, call.spec.complete(call.given)))

    def scattered(each):
        whole = np.zeros(shape, np.longdouble)
        whole[index] = each.reshape(pred.shape)
        return whole

    return exact._replace(grad=exact.grad.map(scattered))


class _Inner:
    """A call with other arguments requiring a gradient."""

    def __init__(self, call: Call, requires):
        self._call, self.requires = call, requires

    def __getattr__(self, name):
        return getattr(self._call, name)
