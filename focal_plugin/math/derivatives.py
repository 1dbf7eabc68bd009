"""Elementwise functions whose derivatives are stated, where autograd through the formula is wrong or not a number.

Autograd gives half or no gradient through abs() and max() at 0, and 0 * inf = NaN where a factor has vanished. These are
exact there, and may be differentiated again, in forward mode, and under torch.func.
"""

from __future__ import annotations
import functools
import operator
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from focal_plugin.compatibility import is_compiling

LARGEST = {torch.float64: 1e200}
"""Stands for an infinite logit: far beyond where every derivative is constant, and no product of it with 0 is NaN."""
LARGEST_OF_FLOATS = 1e30
DIVERGES = 1e8
"""A loss at such a logit is near its finite limit, far below this, or grows with the logit, far above."""
EPSILON = 1e-12
"""What mmdet's Gaussian focal loss adds to probabilities inside logarithms."""


def stated(
    partials: Callable, product: Callable = operator.mul, saturates: bool = False, pullback: Callable | None = None
) -> Callable[[Callable], Callable]:
    """Gives an elementwise function of tensors, with one output or a tuple, its derivatives.

    Args:
        partials: of the inputs and the outputs; for each output a tuple with its derivative by each input, None for none.
        product: of a gradient and a derivative.
        saturates: a gradient beyond the dtype of its input becomes that dtype's largest number; one of a single input.
        pullback: what the gradients of the outputs, some None, make by the partials, in fewer operations; one of a single
            input: of the gradients, the input and the outputs.
    """

    def combined(gradients: Iterable[Tensor | None], by: Iterable[Tensor | None]) -> Tensor | None:
        pairs = zip(gradients, by)
        parts = [product(gradient, each) for gradient, each in pairs if gradient is not None and each is not None]
        return functools.reduce(operator.add, parts) if parts else None

    def of(function: Callable) -> Callable:
        class Reverse(torch.autograd.Function):
            generate_vmap_rule = True
            forward = staticmethod(function)

            @staticmethod
            def setup_context(ctx, inputs, output):
                ctx.set_materialize_grads(False)
                ctx.save_for_backward(*inputs, *(output if isinstance(output, tuple) else (output,)))

            @staticmethod
            def backward(ctx, *gradients):
                saved = ctx.saved_tensors
                if pullback is not None:
                    return pullback(gradients, *saved)
                columns = zip(*partials(*saved))
                found = [
                    combined(gradients, column) if needed else None
                    for needed, column in zip(ctx.needs_input_grad, columns)
                ]
                if saturates:
                    largest = torch.finfo(saved[0].dtype).max
                    found = [None if each is None else each.clamp(-largest, largest) for each in found]
                return tuple(found)

        class BothModes(Reverse):
            """A class of its own, because torch.compile traces none that has a jvp."""

            @staticmethod
            def setup_context(ctx, inputs, output):
                Reverse.setup_context(ctx, inputs, output)
                ctx.save_for_forward(*inputs, *(output if isinstance(output, tuple) else (output,)))

            @staticmethod
            def jvp(ctx, *tangents):
                found = [combined(tangents, row) for row in partials(*ctx.saved_tensors)]
                return tuple(found) if len(found) > 1 else found[0]

        return lambda *inputs: (Reverse if is_compiling() else BothModes).apply(*inputs)

    return of


@stated(lambda factor, value, _: ((value, factor),), product=lambda gradient, by: times(gradient, by))
def times(factor: Tensor, value: Tensor) -> Tensor:
    """A product in which 0 wins over an infinity; NaN stays NaN."""
    vanishes = (factor == 0) & value.isinf() | (value == 0) & factor.isinf()
    return torch.where(vanishes, 0.0, factor * value)


@stated(lambda x, _: ((torch.ones_like(x),),))
def finite(x: Tensor) -> Tensor:
    """Logits with a large number in place of infinity, whose derivatives stand for those of the limit."""
    largest = LARGEST.get(x.dtype, LARGEST_OF_FLOATS)
    return x.clamp(-largest, largest)


def limit(loss: Tensor, is_infinite: Tensor) -> Tensor:
    """The weighted loss at infinite logits, given what `finite` ones give; its derivatives stay."""
    diverges = is_infinite & (loss.detach().abs() > DIVERGES)
    return loss + torch.where(diverges, loss.detach().sign() * torch.inf, 0)


@stated(lambda p, q, y, _: ((1 - 2 * y, None, q - p),))
def soft_one_minus_pt(p: Tensor, q: Tensor, y: Tensor) -> Tensor:
    """1 - p_t = y q + (1 - y) p. The derivative by p is that through q = 1 - p too: near y = 0.5 they cancel."""
    return y * q + (1 - y) * p


def _log_soft_one_minus_pt_by(p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor, y: Tensor, log_of: Tensor) -> tuple:
    is_one, is_zero = (y == 1).to(log_of.dtype), (y == 0).to(log_of.dtype)
    by_p = torch.where(is_one + is_zero == 0, (1 - 2 * y) / log_of.exp(), 0)
    return ((by_p, None, is_zero, is_one, (log_q - log_of).exp() - (log_p - log_of).exp()),)


@stated(_log_soft_one_minus_pt_by, times)
def log_soft_one_minus_pt(p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """log(y q + (1 - y) p), given the logarithms too: at y = 0 and y = 1 one of them, though its number has underflowed."""
    mean = torch.where((y == 0) | (y == 1), 1, y * q + (1 - y) * p).log()
    return torch.where(y == 1, log_q, torch.where(y == 0, log_p, mean))


@stated(lambda x, y, p, q, _: ((p * q, p.new_full((), -1.0), None, None),))
def residual(x: Tensor, y: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """p - y of a logit: without what p itself is rounded by, which is all that is left of it near p = y."""
    e, base = x.abs().neg().exp(), x.clamp(max=0).exp()  # p = base / (1 + e)
    return torch.addcmul(base - y, y, e, value=-1).div_(e.add_(1))


@stated(lambda x, y, p, q, log_p, log_q, _: ((residual(x, y, p, q), log_q - log_p, None, None, None, None),))
def cross_entropy_of_logit(x: Tensor, y: Tensor, p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """-y log p - (1 - y) log q of a logit and what it gives; by it p - y, whose parts y (1 - p) and (1 - y) p cancel."""
    return -(y * log_p + (1 - y) * log_q)


@stated(lambda p, y, q, log_p, log_q, _: (((p - y) / (p * q).clamp(min=EPSILON), log_q - log_p, None, None, None),))
def cross_entropy_of_probability(p: Tensor, y: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """The same of a probability, as torch's binary_cross_entropy has it."""
    return -(y * log_p + (1 - y) * log_q)


def _by_logit(x: Tensor, p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> tuple:
    variance = p * q
    return (variance,), (-variance,), (q,), (-p,)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


def _difference(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if other is None:
        return one
    return -other if one is None else one - other


def _through(gradient: Tensor | None, by: Callable[[], Tensor]) -> Tensor | None:
    return None if gradient is None else gradient * by()


def _from_logit(gradients: tuple, x: Tensor, p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor | None:
    by_p, by_q, by_log_p, by_log_q = gradients
    # Not fused: what p and q give cancels exactly at y = 0.5, and so do log p and log q at p = 0.5.
    through_p = _through(_difference(by_p, by_q), lambda: p * q)
    through_logs = _difference(_through(by_log_p, lambda: q), _through(by_log_q, lambda: p))
    return _sum(through_p, through_logs)


@stated(_by_logit, pullback=_from_logit)
def terms_of_logit(x: Tensor) -> tuple[Tensor, ...]:
    """p = sigmoid(x), q = 1 - p, log p, log q of finite logits."""
    # Not torch.sigmoid, which computes a thread's last elements another way: the bits would depend on the threads. And no
    # torch.where, which waits for its condition. One of the two powers is exactly 1.
    log_p, log_q = x.clamp(max=0), x.neg().clamp_(max=0)
    p, q = log_p.exp(), log_q.exp()
    smaller = p * q
    log1p, whole = torch.log1p(smaller), smaller.add_(1)
    return p.div_(whole), q.div_(whole), log_p.sub_(log1p), log_q.sub_(log1p)


def _by_stopped(p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> tuple:
    bound = (p * q).clamp(min=EPSILON)
    return (-torch.ones_like(p),), (q / bound,), (-p / bound,)


def _from_stopped(gradients: tuple, p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor | None:
    by_q, by_log_p, by_log_q = gradients
    bound = (p * q).clamp(min=EPSILON)
    through_logs = _difference(_through(by_log_p, lambda: q / bound), _through(by_log_q, lambda: p / bound))
    return _difference(through_logs, by_q)


@stated(_by_stopped, pullback=_from_stopped)
def stopped_terms(p: Tensor) -> tuple[Tensor, ...]:
    """q, log p, log q of probabilities as torch's binary_cross_entropy has them: logarithms stop at -100, p q at 1e-12."""
    return 1 - p, p.log().clamp(min=-100), torch.log1p(-p).clamp(min=-100)


def _by_shifted(p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> tuple:
    return (-torch.ones_like(p),), (1 / (p + EPSILON),), (-1 / (q + EPSILON),)


def _from_shifted(gradients: tuple, p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor | None:
    by_q, by_log_p, by_log_q = gradients
    through_p, through_q = _through(by_log_p, lambda: 1 / (p + EPSILON)), _through(by_log_q, lambda: 1 / (q + EPSILON))
    return _difference(_difference(through_p, through_q), by_q)


@stated(_by_shifted, pullback=_from_shifted)
def shifted_terms(p: Tensor) -> tuple[Tensor, ...]:
    """The same as in mmdet's Gaussian focal loss, which adds 1e-12 inside logarithms."""
    q = 1 - p
    return q, (p + EPSILON).log(), torch.where(p < 0.5, torch.log1p(-p), (q + EPSILON).log())


_widening = stated(lambda p, wide: ((torch.ones_like(wide),),), saturates=True)
_WIDENED = {torch.float32: _widening(lambda p: p.float()), torch.float64: _widening(lambda p: p.double())}


def saturating(p: Tensor, dtype: torch.dtype) -> Tensor:
    """Probabilities in the dtype of the arithmetic; their derivatives reach 1e12, and stop at a half type's largest."""
    return p if p.dtype == dtype else _WIDENED[dtype](p)
