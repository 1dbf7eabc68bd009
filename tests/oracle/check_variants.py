"""Any sigmoid variant, in one call held to the oracle, and what each can be given."""

import itertools
import math
from unittest import mock

import numpy as np
import torch

from focal_plugin import backend, functional
from focal_plugin.kernels.problem import Problem
from focal_plugin.math import SPECS
from focal_plugin.ops import autograd, library
from tests import oracle
from tests.oracle import assert_accurate
from tests.oracle.inputs import C, N, generator, labels, placed, predictions
from tests.oracle.variants import statistics, variant_loss
from tests.variants import VARIANTS

ELEMENTWISE = [name for name, variant in VARIANTS.items() if variant.point]
"""The losses of one logit each: all but that over a softmax."""


def units_of_p(name: str, device) -> int:
    """How many eps p may be off, which shows where a difference from it cancels."""
    is_a_gpus = torch.device(device).type == 'cuda' or backend.forced == 'cuda'  # in software too
    return VARIANTS[name].units_of_p if is_a_gpus else 1


def random_upstream(shape, dtype) -> torch.Tensor:
    return torch.rand(shape, generator=generator(1)).to(dtype).add_(0.5)


def oracle_of(name, pred, target, weight, upstream, probabilities, arguments, units=1):
    arguments = {key: None if isinstance(value, int) and value == -1 else value for key, value in arguments.items()}
    eps = units * torch.finfo(torch.promote_types(pred.dtype, torch.float32)).eps
    return variant_loss(
        name, pred, target, weight, upstream=upstream, eps=eps, probabilities=bool(probabilities), **arguments
    )


def check(name, device, pred, target, weight=None, probabilities=None, exact=None, **arguments):
    """Value and gradient under a random upstream gradient against the oracle; gives (loss, pred's gradient)."""
    variant = VARIANTS[name]
    leaf = placed(pred.detach(), device).requires_grad_()
    flags = variant.of_logits
    if probabilities:
        flags = {variant.probabilities: variant.probabilities == 'activated'}
    target_there, weight_there, arguments_there = placed((target, weight, arguments), device)
    loss = functional.FUNCTIONS[name](leaf, target_there, weight_there, **arguments_there, **flags)
    upstream = random_upstream(loss.shape, loss.dtype)
    loss.backward(upstream.to(device))
    units = units_of_p(name, device)
    exact = exact or oracle_of(name, pred, target, weight, upstream, probabilities, arguments, units)
    _hold(name, device, pred, loss, leaf.grad, exact, probabilities)
    return loss, leaf.grad


def check_in_one_pass(name, device, pred, target, weight=None, **arguments):
    """The sum and its gradient by the kernel that gives both, beside the logits and over them: pred is spent."""
    exact = oracle_of(name, pred, target, weight, 1.0, None, arguments, units_of_p(name, device))
    problem = problem_of(name, *placed((pred.detach(), target, weight), device), **placed(arguments, device))
    assert library.has_one_pass(problem, gathers=False)
    loss, grad = library.forward_and_backward(problem)
    _hold(name, device, pred, loss, grad, exact, None)
    assert grad.stride() == torch.empty_like(problem.pred).stride() and loss.dtype == torch.float32
    if library.writes_in_place(problem):
        again, over = library.forward_and_backward(problem, in_place=True)
        assert over is problem.pred and torch.equal(again, loss) and torch.equal(over, grad)
    return loss, grad


def problem_of(name, *given, **arguments) -> Problem:
    """What a call of a variant's function hands over to be computed."""
    with mock.patch.object(autograd, 'loss_of', lambda problem, statistics: problem):
        return functional.FUNCTIONS[name](*given, **arguments, **VARIANTS[name].of_logits)


def _hold(name, device, pred, loss, grad, exact, probabilities) -> None:
    """Asserts what the oracle says of a loss and pred's gradient."""
    value, value_terms, value_through_p = (
        each.reshape(loss.shape) for each in (exact.value, exact.value_terms, exact.value_through_p)
    )
    grad_through_p = exact.grad_through_p
    if not probabilities:
        eps = torch.finfo(torch.promote_types(pred.dtype, torch.float32)).eps
        grad_through_p = grad_through_p + vanishing(pred, exact.grad) / eps
        if value.size == pred.numel():
            value_through_p = value_through_p + vanishing(pred, value.reshape(pred.shape)).reshape(value.shape) / eps
    value_through_p, grad_through_p = (units_of_p(name, device) * each for each in (value_through_p, grad_through_p))
    assert_accurate(loss.detach().cpu(), value, value_terms, value_through_p)
    assert_accurate(grad.cpu(), exact.grad, exact.grad_terms, grad_through_p, bool(probabilities))


def vanishing(pred, exact) -> np.ndarray:
    """Results that may be flushed to 0: p or 1 - p is below the smallest normal number, they are not far above it."""
    smallest = torch.finfo(torch.promote_types(pred.dtype, torch.float32)).smallest_normal
    flushed = oracle.array(pred.double().abs()) > -math.log(smallest)
    return np.where(flushed & (np.abs(exact) < 64 * smallest), np.abs(exact), 0)


def forms_of(name):
    """The forms of a target that a variant takes."""
    return ['labels', *['scored'] * VARIANTS[name].scored, *['dense'] * VARIANTS[name].dense]


def numbers_of_classes(name: str, classes: int) -> dict[str, list[float]]:
    """A number per class of each argument that takes them."""
    return {
        key: list(itertools.islice(itertools.cycle(values), classes)) for key, values in VARIANTS[name].vectors.items()
    }


def target_of(name: str, shape, form: str | None = None):
    """A target in the form that heads hand this variant most, or in another."""
    form = form or SPECS[name].form
    label, score = labels(*shape[:-1], classes=shape[-1]), torch.rand(shape[:-1], generator=generator(4))
    if form == 'labels':
        return label
    if form == 'scored':
        return label, score
    values = torch.rand(shape, generator=generator(5))
    return torch.where(values < 0.3, 0, torch.where(values > 0.9, 1, values))


STATISTICS = {
    'labels': dict(target=labels(N), reduction='mean'),
    'a one-hot': dict(target=torch.nn.functional.one_hot(labels(N), C + 1)[:, :C].float(), reduction='mean'),
    'weights and avg_factor': dict(target=labels(N), weight=torch.rand(N, generator=generator(3)), avg_factor=7.0,
                                   reduction='mean'),
    'an avg_factor of a tensor': dict(target=labels(N), avg_factor=torch.tensor([7.0]), reduction='mean'),
    'one value per element': dict(target=labels(N), reduction='none'),
    'all background': dict(target=torch.full((N,), C), reduction='sum'),
    'a ratio per class': dict(target=labels(N), ratio=torch.linspace(0, 1, C), reduction='mean'),
}  # fmt: skip


def check_statistics(device, arguments, dtype):
    """Of positives and negatives by class; weight and mean in, the upstream gradient (AMP's scale) out; they add up."""
    arguments = VARIANTS['equalized_focal'].arguments(C) | arguments
    target, weight = arguments.pop('target'), arguments.pop('weight', None)
    pred = predictions(N, C).to(dtype)
    sums = torch.full((2, C), 3.0, dtype=torch.float64, device=device)
    leaf = pred.to(device).requires_grad_()
    given = placed((target, weight), device)
    loss = functional.equalized_focal_loss(leaf, *given, statistics=sums, **placed(arguments, device))
    assert (sums == 3).all()
    loss.backward(torch.full_like(loss, 512.0))
    expected = statistics('equalized_focal', pred, target, weight, **arguments)
    np.testing.assert_allclose(sums.cpu().numpy() - 3, expected, rtol=1e-5, atol=1e-12)
    plain = variant_loss('equalized_focal', pred, target, weight, upstream=512.0, **arguments)
    assert_accurate(leaf.grad.cpu(), plain.grad, plain.grad_terms, plain.grad_through_p)
