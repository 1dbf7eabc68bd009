"""The package's operators: the only place that touches torch.library.

One Library with plain ``define``/``impl`` is the cheapest registration in eager mode; the fakes make every operator
traceable by torch.compile. Autograd stays outside (ops/elementwise.py), so the operators take no part in it.
"""

import functools
import importlib

import torch
from torch import Tensor

from focal_plugin.kernels.checks import check_probabilities
from focal_plugin.kernels.problem import Problem
from focal_plugin.math import SPECS

_MODULES = {
    'triton': 'focal_plugin.kernels.triton.elementwise',
    'native': 'focal_plugin.kernels.native.elementwise',
    'torch': 'focal_plugin.kernels.eager',
}
_PROBLEM = (
    'Tensor pred, Tensor target, Tensor? score, Tensor? weight, Tensor? table, Tensor? avg_factor, str spec, '
    'float[] parameters, bool activated, int? ignore_index, float scale, bool reduce, str backend'
)

_library = torch.library.Library('focal_plugin', 'DEF')
_library.define(f'elementwise_forward({_PROBLEM}) -> Tensor')
_library.define(f'elementwise_backward(Tensor upstream, {_PROBLEM}) -> Tensor')
_library.define(
    'sigmoid_focal_loss(Tensor pred, Tensor target, float gamma, float alpha, str reduction) -> Tensor',
)


def problem_of(pred, target, score, weight, table, avg_factor, spec, *rest) -> Problem:
    return Problem(pred, target, score, weight, table, avg_factor, SPECS[spec], *rest)


@functools.cache
def _module(backend: str):
    return importlib.import_module(_MODULES[backend])


def _forward(*arguments) -> Tensor:
    problem = problem_of(*arguments[:-1])
    check_probabilities(problem)
    return _module(arguments[-1]).forward(problem)


def _backward(upstream: Tensor, *arguments) -> Tensor:
    return _module(arguments[-1]).backward(problem_of(*arguments[:-1]), upstream)


def _directly(pred: Tensor, backend: str) -> bool:
    """Whether a call may pass the dispatcher by: nothing is watching or tracing (7 us a call on a CPU).

    The torch backend is no operator: it differentiates a chunk at a time, which nothing below autograd may do.
    """
    if backend == 'torch':
        return True
    if torch.compiler.is_compiling():
        return False
    return type(pred) is Tensor and torch._C._len_torch_dispatch_stack() == 0


def forward(pred: Tensor, *arguments) -> Tensor:
    """The forward of a problem, given as the operator's arguments."""
    run = _forward if _directly(pred, arguments[-1]) else elementwise_forward
    return run(pred, *arguments)


def backward(upstream: Tensor, pred: Tensor, *arguments) -> Tensor:
    """The gradient by pred under an upstream gradient."""
    run = _backward if _directly(pred, arguments[-1]) else elementwise_backward
    return run(upstream, pred, *arguments)


def _fake_forward(
    pred, target, score, weight, table, avg_factor, spec, parameters, activated, ignore_index, scale, reduce, backend
):
    if not reduce:
        return torch.empty_like(pred)
    shape = () if avg_factor is None else avg_factor.shape
    return pred.new_empty(shape, dtype=torch.promote_types(pred.dtype, torch.float32))


def _fake_backward(upstream, pred, *arguments):
    return torch.empty_like(pred)


def _scriptable(pred: Tensor, target: Tensor, gamma: float, alpha: float, reduction: str) -> Tensor:
    from focal_plugin import functional

    return functional.sigmoid_focal_loss(pred, target, gamma=gamma, alpha=alpha, reduction=reduction)


_library.impl('elementwise_forward', _forward, 'CompositeExplicitAutograd')
_library.impl('elementwise_backward', _backward, 'CompositeExplicitAutograd')
# TorchScript can't call an autograd.Function, but it can call an operator that does.
_library.impl('sigmoid_focal_loss', _scriptable, 'CompositeImplicitAutograd')
torch.library.register_fake('focal_plugin::elementwise_forward', _fake_forward, lib=_library)
torch.library.register_fake('focal_plugin::elementwise_backward', _fake_backward, lib=_library)

elementwise_forward = torch.ops.focal_plugin.elementwise_forward.default
elementwise_backward = torch.ops.focal_plugin.elementwise_backward.default
