"""The package's operators: the only place that touches torch.library.

One Library with plain ``define``/``impl`` is the cheapest registration in eager mode; the fakes make every operator
traceable by torch.compile. Autograd stays outside (ops/autograd.py), so the operators take no part in it.
"""

from __future__ import annotations
import contextlib
import functools
import importlib
from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch import Tensor

from focal_plugin.compatibility import is_compiling
from focal_plugin.kernels import checks
from focal_plugin.kernels.problem import SCHEMA, TENSORS, Problem
from focal_plugin.kernels.torch import elementwise, rowwise
from focal_plugin.math import SPECS
from focal_plugin.tensors import of_sums

_library = torch.library.Library('focal_plugin', 'DEF')
_library.define(f'loss_forward({SCHEMA}) -> Tensor')
_library.define(f'loss_backward(Tensor upstream, bool gathers, {SCHEMA}) -> (Tensor, Tensor)')


@functools.lru_cache(maxsize=None)
def _kernels(backend: str, variant: str) -> ModuleType:
    """The module of a variant's family: forward and backward, and where it has them total, forward_and_backward with
    IN_PLACE and GATHERS, or prepared.
    """
    return importlib.import_module(f'focal_plugin.kernels.{backend}.{SPECS[variant].family}')


def _run(function: str, problem: Problem, *arguments):
    """Calls a function of the kernels that a problem has."""
    call = getattr(_kernels(problem.backend, problem.variant), function)
    if problem.backend not in ('triton', 'cuda'):
        return call(*arguments)
    with _current(problem.pred.device):
        _selftest(problem.backend).require(problem.pred, function == 'forward_and_backward')
        return call(*arguments)


@functools.lru_cache(maxsize=None)
def _selftest(backend: str) -> ModuleType:
    """Of a backend that compiles on the user's machine."""
    return importlib.import_module(f'focal_plugin.kernels.{backend}.selftest')


def _current(device: torch.device):
    """Makes a GPU the current one, on which kernels are launched whatever the tensors' is."""
    if device.index is None:
        return contextlib.nullcontext()
    gpus = getattr(torch, device.type)
    return contextlib.nullcontext() if gpus.current_device() == device.index else gpus.device(device)


def _is_direct(problem: Problem) -> bool:
    """Whether a call may pass the dispatcher by (7 us a call on a CPU): nothing watches, and no tensor stands for another.

    The torch backend is no operator: it differentiates a chunk at a time, which nothing below autograd may do.
    """
    if problem.backend == 'torch':
        return True
    if is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    for tensor in problem[:TENSORS]:
        if tensor is not None and type(tensor) is not Tensor:
            return False
    return True


def forward(problem: Problem) -> Tensor:
    """The losses, or their sum."""
    return _forward(problem) if _is_direct(problem) else loss_forward(*problem)


def _forward(problem: Problem) -> Tensor:
    if problem.activated:
        checks.check_probabilities(problem)
    if problem.pred.numel() == 0:
        checks.check_labels(problem)  # no kernel runs that would
        checks.check_channels(problem)
    return _run('forward', problem, problem)


def has_one_pass(problem: Problem, gathers: bool) -> bool:
    """Whether forward_and_backward takes the problem, statistics being gathered or not."""
    if problem.output != 'sum' or problem.channel is not None or problem.pred.numel() == 0 or not _is_direct(problem):
        return False
    kernels = _kernels(problem.backend, problem.variant)
    return hasattr(kernels, 'forward_and_backward') and (kernels.GATHERS or not gathers)


def writes_in_place(problem: Problem) -> bool:
    """Whether forward_and_backward, which takes the problem, can write the gradient over pred."""
    return _kernels(problem.backend, problem.variant).IN_PLACE


def has_total(problems: Sequence[Problem]) -> bool:
    """Whether total takes the problems, which reduce and differ in nothing but their tensors' sizes."""
    first = problems[0]
    return all(map(_is_direct, problems)) and hasattr(_kernels(first.backend, first.variant), 'total')


def total(problems: Sequence[Problem]) -> Tensor:
    """The sum of the problems' sums."""
    for problem in problems:
        if problem.activated:
            checks.check_probabilities(problem)
    return _run('total', problems[0], problems)


def forward_and_backward(
    problem: Problem, in_place: bool = False, statistics: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum and the gradient by pred under an upstream gradient of 1, which overwrites pred if it is to be in place.

    In float16 it may underflow: the loss scale comes with the backward.

    Args:
        statistics: new_statistics, to be filled in.
    """
    if problem.activated:
        checks.check_probabilities(problem)
    out = problem.pred if in_place else torch.empty_like(problem.pred)
    gathered = () if statistics is None else (statistics,)
    return _run('forward_and_backward', problem, problem, out, *gathered), out


def prepared(problem: Problem) -> Callable | None:
    """forward_and_backward, which takes the problem, for those that differ from it in memory and scale alone; or None.

    It takes the tensors and the settings of a problem, and gives (None, None) where a value is to be looked at again.
    """
    make = getattr(_kernels(problem.backend, problem.variant), 'prepared', None)
    # Probabilities are looked at before a kernel runs.
    return None if make is None or problem.activated or problem.per_class_parameters is not None else make(problem)


def backward(problem: Problem, upstream: Tensor, gathers: bool) -> tuple[Tensor, Tensor]:
    """(the gradient by pred under an upstream gradient, the statistics by class: empty unless gathered)."""
    if _is_direct(problem) and type(upstream) is Tensor:
        return _backward(problem, upstream, gathers)
    return loss_backward(upstream, gathers, *problem)


def _backward(problem: Problem, upstream: Tensor, gathers: bool) -> tuple[Tensor, Tensor]:
    statistics = new_statistics(problem, gathers).zero_()
    grad = _run('backward', problem, problem, problem.per_element(upstream), statistics if gathers else None)
    return grad, statistics


def new_statistics(problem: Problem, gathers: bool = True) -> Tensor:
    """Memory for the statistics by class, or none of it."""
    pred = problem.pred
    return pred.new_empty((2, pred.size(-1)) if gathers else 0, dtype=of_sums(pred.device))


def composed(problem: Problem) -> Tensor:
    """The loss as plain autograd operations, which compilers and transforms see through."""
    checks.check_probabilities(problem)
    read = problem.selected(problem.pred)
    target, score = checks.targets_in_range(read, problem.target, problem.score, problem.ignore_index)
    plain = elementwise if problem.spec.family == 'elementwise' else rowwise  # a compiler follows no import
    return plain.compose(problem._replace(target=target, score=score))


def _fake_forward(*arguments) -> Tensor:
    problem = Problem(*arguments)
    pred = problem.pred
    if problem.output == 'element':
        return torch.empty_like(pred)
    if problem.output == 'row':
        return pred.new_empty(pred.shape[:-1] if problem.channel is None else problem.channel.shape)
    shape = () if problem.avg_factor is None else problem.avg_factor.shape
    return pred.new_empty(shape, dtype=problem.arithmetic)


def _fake_backward(upstream, gathers, *arguments) -> tuple[Tensor, Tensor]:
    problem = Problem(*arguments)
    return torch.empty_like(problem.pred), new_statistics(problem, gathers)


def _operator(name: str, implementation, fake):
    """A defined operator, given what it does and what its results look like."""
    _library.impl(name, implementation, 'CompositeExplicitAutograd')
    _library.impl(name, fake, 'Meta')
    return getattr(torch.ops.focal_plugin, name).default


loss_forward = _operator('loss_forward', lambda *arguments: _forward(Problem(*arguments)), _fake_forward)
loss_backward = _operator(
    'loss_backward',
    lambda upstream, gathers, *arguments: _backward(Problem(*arguments), upstream, gathers),
    _fake_backward,
)
