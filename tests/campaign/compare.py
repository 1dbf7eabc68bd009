"""Holds a call to the reference, and gives in words what is wrong."""

import numpy as np
import torch

from tests.campaign import formulas
from tests.campaign.call import Call, Result, run, value_of
from tests.campaign.reference import Exact, expected
from tests.campaign.tensors import in_memory
from tests.conftest import device_of, may_look
from tests.oracle import array, rounded, ulp_distance

# A composed derivative has no promised budget: what plain float32 gives.
COMPOSED = {torch.float64: 1e-7}  # else 1e-3


def _relative(call: Call) -> float:
    """The promised relative error, by the dtype of the arithmetic; whether the 1e-12 at which torch ends p (1 - p) is a
    float32 or a float64 is left open."""
    if call.arithmetic == torch.float32:
        return 1e-5
    return 1e-7 if call.probabilities else 1e-12


def faults(call: Call, backend: str, threads: bool = False) -> list[str]:
    """What is wrong with a call, a line each; nothing where all is right."""
    there = call.on(device_of(backend), looks=may_look(backend))
    try:
        before = _bits(there)
        served = 'torch' if backend == 'torch' or call.pred.dtype == torch.float64 else 'auto'
        name = served if call.requires and backend != 'triton' else backend
        result = run(there, name, twice=call.second is None and call.way == 'backward')
        plain = None if call.statistics else value_of(there, backend)
    except Exception as error:  # what a valid call raises is a fault like any other
        return [f'raises {_named(error)}']
    try:
        found = _against_reference(call, result)
    except Exception as error:  # of the reference, which has to know what is right too
        return [f'the reference raises {_named(error)}']
    if before != _bits(there):
        found.append("writes into the caller's tensors")
    if result.again is not None and not _same(result.again, result.grad):
        found.append('second backward: other bits')
    # A transform sees plain autograd operations, in float64.
    if plain is not None and not call.requires and call.way != 'vjp' and not _same(plain, result.loss):
        found.append('no_grad: other bits')
    # Plain autograd operations, which serve other gradients, have torch's own sums.
    if threads and not found and not call.requires and call.second is None:
        found += _with_threads(call, name, result)
    return found


def _named(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'


def _against_reference(call: Call, result: Result) -> list[str]:
    exact = expected(call)
    if result.loss.dtype != call.output_dtype:
        return [f'value: {result.loss.dtype} where {call.output_dtype} is right']
    if tuple(result.loss.shape) != call.output_shape or result.grad.shape != call.pred.shape:
        return [f'value: shape {tuple(result.loss.shape)} where {call.output_shape} is right']
    relative = _relative(call)
    found = [
        *_off('value', result.loss, exact.loss, relative),
        *_off('gradient', result.grad, exact.grad, relative, saturates=call.probabilities),
    ]
    if is_moderate(call):
        if exact.by_weight is not None:
            found += _off('gradient of weight', result.others['weight'], exact.by_weight, relative)
        if exact.by_avg_factor is not None:
            found += _off('gradient of avg_factor', result.others['avg_factor'], exact.by_avg_factor, relative)
        found += _composed(call, result)
    if exact.statistics is not None:
        found += _off('statistics', result.statistics, exact.statistics, relative)
    return found


def is_moderate(call: Call) -> bool:
    """Ordinary logits and no NaN or infinity anywhere: where the formulas serve."""
    operands = [call.pred, call.weight, call.upstream]
    operands += list(call.target) if isinstance(call.target, tuple) else [call.target]
    finite = all(each is None or bool(in_memory(each).double().isfinite().all()) for each in operands)
    return finite and not call.probabilities and bool((call.pred.detach().abs() <= 30).all())


def _off(what: str, actual: torch.Tensor, exact: Exact, relative: float, saturates: bool = False) -> list[str]:
    """The first results beyond their budgets."""
    dtype = actual.dtype
    info = torch.finfo(dtype)
    value, terms, slack = (np.asarray(each, np.float64) for each in exact)
    if tuple(actual.shape) != value.shape:
        return [f'{what}: shape {tuple(actual.shape)} where {value.shape} is right']
    if saturates:
        value = value.clip(-info.max, info.max)
    got = array(in_memory(actual)).astype(np.float64)
    target = rounded(value, dtype).double().numpy()
    with np.errstate(all='ignore'):
        error = np.abs(got - value)
        good = error <= relative * np.maximum(terms, np.abs(value)) + slack + info.smallest_normal + info.eps * np.abs(
            value
        )
        if info.bits == 16:
            step = info.eps * np.maximum(np.abs(value), info.smallest_normal)
            good |= (ulp_distance(actual, value, dtype) <= 1) | (error <= relative * terms + slack + step)
        good = np.where(np.isfinite(target) & np.isfinite(value), good & np.isfinite(got), got == target)
        good |= np.isfinite(value) & (info.bits == 16) & (ulp_distance(actual, value, dtype) <= 1)
        good |= np.isnan(value) & np.isnan(got)
    return _worst(what, got, value, ~good)


def _worst(what, got, value, bad) -> list[str]:
    places = np.argwhere(bad)
    if len(places) == 0:
        return []
    first = tuple(int(i) for i in places[0])
    return [f'{what}: {got[first]:.9g} where {value[first]:.9g} is right, at {first}, {len(places)} of {value.size}']


def _composed(call: Call, result: Result) -> list[str]:
    """Gradients of targets and scores, and second derivatives, by autograd of the formulas in float64."""
    wanted = 'target' in call.requires
    if not wanted and result.second is None:
        return []
    if call.variant == 'mask_focal' or call.given.get('normalize') == 'batch':
        return []
    x = in_memory(call.pred).double().contiguous().requires_grad_()
    values = call.target[1] if isinstance(call.target, tuple) else call.target
    soft = isinstance(call.target, tuple) or values.is_floating_point()
    values = in_memory(values).to(call.arithmetic).double().clamp(max=1).requires_grad_(wanted) if soft else None
    upstream = in_memory(call.upstream).double().contiguous()

    def derivative(x, values=values):
        exact = formulas.loss(call, x, values)
        if wanted:
            return torch.autograd.grad(exact, values, upstream, materialize_grads=True)[0]
        (grad,) = torch.autograd.grad(exact, x, upstream, create_graph=True)
        return torch.autograd.grad((grad * call.second.double()).sum(), x, materialize_grads=True)[0]

    if call.spec.factor_of_label is not None:  # the factors are not in the formulas
        return []
    exact, eps = derivative(x), 4 * torch.finfo(call.arithmetic).eps
    # What a few units in the last place of p change: near a pole or a step of the formula everything.
    near = [derivative(x + sign * eps * (1 + x.abs())) for sign in (-1, 1)]
    if soft:
        # p and 1 - p are rounded each for itself: p_t of a target of 0.5 is off though it is 0.5 at every logit.
        near += [
            derivative(x, torch.where((values > 0) & (values < 1), values * (1 + sign * eps), values))
            for sign in (-1, 1)
        ]
    slack = torch.stack([(each - exact).abs() for each in near]).amax(0)
    what, actual = ('gradient of target', result.others['target']) if wanted else ('second derivative', result.second)
    return _off_composed(call, what, actual, exact, slack.detach().numpy())


def _off_composed(call: Call, what: str, actual: torch.Tensor, exact: torch.Tensor, slack) -> list[str]:
    exact = exact.detach().numpy()
    got, value = array(in_memory(actual)).astype(np.float64), rounded(exact, actual.dtype).double().numpy()
    size = np.abs(value[np.isfinite(value)]).max(initial=0)
    info = torch.finfo(actual.dtype)
    relative = COMPOSED.get(call.arithmetic, 1e-3) + info.eps
    budget = (
        relative * np.abs(value) + relative * 1e-2 * size + 2 * np.nan_to_num(slack, nan=np.inf) + info.smallest_normal
    )
    with np.errstate(invalid='ignore'):
        good = (
            (np.abs(got - value) <= budget) | (got == value) | ~np.isfinite(exact)
        )  # a pole of the formula is left open
    bad = ~good
    return _worst(what, got, value, bad)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and np.array_equal(array(in_memory(a)), array(in_memory(b)), equal_nan=True)


def _bits(call: Call) -> list:
    operands = [call.pred, call.weight, call.upstream, call.avg_factor, call.labels]
    operands += list(call.target) if isinstance(call.target, tuple) else [call.target]
    return [array(in_memory(each)).tobytes() for each in operands if isinstance(each, torch.Tensor)]


def _with_threads(call: Call, backend: str, result: Result) -> list[str]:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            other = run(call, backend)
            if not (_same(other.loss, result.loss) and _same(other.grad, result.grad)):
                return [f'{threads} threads: other bits']
    finally:
        torch.set_num_threads(before)
    return []
