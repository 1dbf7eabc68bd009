"""The package's operators: the only place that touches torch.library.

One Library with plain ``define``/``impl`` is the cheapest registration in eager mode; the fakes make every operator
traceable by torch.compile. Autograd stays outside (ops/autograd.py), so the operators take no part in it.
"""

import contextlib
import functools
import importlib
from collections.abc import Iterable

import torch
from torch import Tensor

from focal_plugin.kernels import checks, eager, rowwise_eager
from focal_plugin.kernels.problem import Problem
from focal_plugin.math import SPECS

_MODULES = {
    ('elementwise', 'triton'): 'focal_plugin.kernels.triton.elementwise',
    ('elementwise', 'native'): 'focal_plugin.kernels.native.elementwise',
    ('elementwise', 'torch'): 'focal_plugin.kernels.eager',
    ('rowwise', 'triton'): 'focal_plugin.kernels.triton.rowwise',
    ('rowwise', 'native'): 'focal_plugin.kernels.native.elementwise',
    ('rowwise', 'torch'): 'focal_plugin.kernels.rowwise_eager',
}
_PROBLEM = (
    'Tensor pred, Tensor target, Tensor? score, Tensor? weight, Tensor? table, Tensor? avg_factor, '
    'Tensor? channel, str spec, float[] parameters, bool activated, int? ignore_index, float scale, str output, '
    'str backend'
)

_library = torch.library.Library('focal_plugin', 'DEF')
_library.define(f'loss_forward({_PROBLEM}) -> Tensor')
_library.define(f'loss_backward(Tensor upstream, {_PROBLEM}, bool gathers) -> (Tensor, Tensor)')
_SCRIPTABLE = ('sigmoid_focal_loss', 'sigmoid_focal_star_loss')
for _name in _SCRIPTABLE:
    _library.define(f'{_name}(Tensor pred, Tensor target, float gamma, float alpha, str reduction) -> Tensor')


def problem_of(pred, target, score, weight, table, avg_factor, channel, spec, *rest) -> Problem:
    return Problem(pred, target, score, weight, table, avg_factor, channel, SPECS[spec], *rest)


_imported = functools.cache(importlib.import_module)


def _run(backend: str, function: str, problem: Problem, *arguments):
    """Calls a function of a backend's kernels."""
    call = getattr(_imported(_MODULES[problem.spec.skeleton, backend]), function)
    if backend != 'triton':
        return call(problem, *arguments)
    with _current(problem.pred.device):
        _imported('focal_plugin.kernels.triton.self_test').require(problem.pred)
        return call(problem, *arguments)


def _current(device: torch.device):
    """Makes a GPU the current one, which Triton launches on whatever the tensors' is."""
    if device.index is None:
        return contextlib.nullcontext()
    gpus = getattr(torch, device.type)
    return contextlib.nullcontext() if gpus.current_device() == device.index else gpus.device(device)


def _forward(*arguments) -> Tensor:
    problem = problem_of(*arguments[:-1])
    checks.check_probabilities(problem)
    if problem.pred.numel() == 0:
        checks.check_labels(problem)  # no kernel runs that would
    return _run(arguments[-1], 'forward', problem)


def _backward(upstream: Tensor, *arguments) -> tuple[Tensor, Tensor | None]:
    *arguments, backend, gathers = arguments
    problem = problem_of(*arguments)
    statistics = _statistics_of(problem.pred) if gathers else None
    return _run(backend, 'backward', problem, problem.per_element(upstream), statistics), statistics


def _statistics_of(pred: Tensor) -> Tensor:
    return pred.new_zeros((2, pred.size(-1)), dtype=torch.float64)


def _backward_of_tensors(*arguments) -> tuple[Tensor, Tensor]:
    grad, statistics = _backward(*arguments)
    return grad, grad.new_empty(0, dtype=torch.float64) if statistics is None else statistics


def _directly(tensors: Iterable[Tensor | None], backend: str) -> bool:
    """Whether a call may pass the dispatcher by (7 us a call on a CPU): nothing watches, and no tensor stands for another.

    The torch backend is no operator: it differentiates a chunk at a time, which nothing below autograd may do.
    """
    if backend == 'torch':
        return True
    if torch.compiler.is_compiling():
        return False
    return torch._C._len_torch_dispatch_stack() == 0 and all(t is None or type(t) is Tensor for t in tensors)


def forward(*arguments) -> Tensor:
    """The forward of a problem, given as the operator's arguments."""
    run = _forward if _directly(arguments[:7], arguments[-1]) else loss_forward
    return run(*arguments)


def in_one_pass(*arguments) -> bool:
    """Whether forward_and_backward takes the problem.

    Of half-precision logits no gradient may be kept: it underflows without the loss scale, which comes with the backward.
    """
    tensors, spec, output, backend = arguments[:7], SPECS[arguments[7]], *arguments[-2:]
    pred, channel = tensors[0], tensors[6]
    alone = backend == 'native' and output == 'sum' and channel is None and pred.dtype == torch.float32
    return alone and spec.skeleton == 'elementwise' and pred.numel() > 0 and _directly(tensors, backend)


def composed(problem: Problem) -> Tensor:
    """The loss as plain autograd operations, which compilers and transforms see through."""
    checks.check_probabilities(problem)
    read = problem.own(problem.pred)
    target, score = checks.targets_in_range(read, problem.target, problem.score, problem.ignore_index)
    problem = problem._replace(target=target, score=score)
    return (eager if problem.spec.skeleton == 'elementwise' else rowwise_eager).compose(problem)


def forward_and_backward(*arguments) -> tuple[Tensor, Tensor]:
    """The sum and the gradient by pred, given the operator's arguments."""
    problem = problem_of(*arguments[:-1])
    checks.check_probabilities(problem)
    return _run(arguments[-1], 'forward_and_backward', problem)


def backward(*arguments) -> tuple[Tensor, Tensor | None]:
    """The gradient by pred under an upstream gradient, given as the operator's arguments; and the statistics, if wanted."""
    run = _backward if _directly(arguments[:8], arguments[-2]) else loss_backward
    return run(*arguments)


def _fake_forward(
    pred,
    target,
    score,
    weight,
    table,
    avg_factor,
    channel,
    spec,
    parameters,
    activated,
    ignore_index,
    scale,
    output,
    backend,
):
    if output == 'element':
        return torch.empty_like(pred)
    if output == 'row':
        return pred.new_empty(pred.shape[:-1] if channel is None else channel.shape)
    shape = () if avg_factor is None else avg_factor.shape
    return pred.new_empty(shape, dtype=torch.promote_types(pred.dtype, torch.float32))


def _fake_backward(upstream, pred, *arguments):
    gathers = arguments[-1]
    return torch.empty_like(pred), _statistics_of(pred) if gathers else pred.new_empty(0, dtype=torch.float64)


def _scriptable(name: str, pred: Tensor, target: Tensor, gamma: float, alpha: float, reduction: str) -> Tensor:
    from focal_plugin import functional

    return getattr(functional, name)(pred, target, gamma=gamma, alpha=alpha, reduction=reduction)


_library.impl('loss_forward', _forward, 'CompositeExplicitAutograd')
_library.impl('loss_backward', _backward_of_tensors, 'CompositeExplicitAutograd')
# TorchScript can't call an autograd.Function, but it can call an operator that does.
for _name in _SCRIPTABLE:
    _library.impl(_name, functools.partial(_scriptable, _name), 'CompositeImplicitAutograd')
torch.library.register_fake('focal_plugin::loss_forward', _fake_forward, lib=_library)
torch.library.register_fake('focal_plugin::loss_backward', _fake_backward, lib=_library)

loss_forward = torch.ops.focal_plugin.loss_forward.default
loss_backward = torch.ops.focal_plugin.loss_backward.default
