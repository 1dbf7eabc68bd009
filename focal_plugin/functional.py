"""One public function for each variant, made from its spec: FUNCTIONS, and each under its own name in this module."""

from __future__ import annotations
import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from focal_plugin import arguments, backend, documentation
from focal_plugin.compatibility import in_one_graph
from focal_plugin.kernels import checks
from focal_plugin.kernels.problem import Problem, divided
from focal_plugin.math import SPECS, Spec
from focal_plugin.ops import autograd
from focal_plugin.parameters import check_parameter, flag, unknown
from focal_plugin.tensors import require_grad, vector_on_device_of


@in_one_graph
def apply(
    spec: Spec, parameters: Mapping[str, Any], pred: Tensor, target, weight=None, *, statistics=None, **given
) -> Tensor:
    """Runs a variant; the arguments are those of problem_of.

    Args:
        statistics: (2, C) float64, to which the backward adds, class by class, the sums of the absolute gradients of
            positives and of negatives, without the upstream gradient.
    """
    if statistics is not None:
        arguments.check_statistics(pred, statistics)
    return autograd.loss_of(problem_of(spec, parameters, pred, target, weight, **given), statistics)


def problem_of(
    spec: Spec,
    parameters: Mapping[str, Any],
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    *,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    ignore_index: int | None = None,
    activated: bool = False,
    loss_weight: float = 1.0,
    channel: Tensor | None = None,
) -> Problem:
    """What a variant is to compute: checks and canonical forms, the factor of the reduction, the backend.

    Args:
        spec: the variant.
        parameters: its public arguments, checked.
        pred: logits, canonical.
        activated: pred holds probabilities.
        loss_weight: a factor that is folded into the kernel.
        channel: of pred (n, channels, P) only this channel of each row is read, int64 (n,); the target is then (n, P).

    The other arguments are those of the public functions.
    """
    arguments.check_reduction(reduction, avg_factor)
    if ignore_index is not None:
        ignore_index = arguments.canonical_ignore_index(ignore_index)
    if spec.family == 'rowwise':
        arguments.check_rows(pred, target, weight)
    read = pred if channel is None else pred.select(1, 0)
    target, score = arguments.canonical_target(read, target, ignore_index, spec.scored)
    if weight is not None:
        weight = arguments.canonical_weight(read, weight)
    if avg_factor is not None:
        avg_factor = arguments.canonical_avg_factor(pred, avg_factor)
    if not pred.is_cpu:
        parameters = {name: vector_on_device_of(pred, value) for name, value in parameters.items()}
    packed_parameters, per_class = packed(spec, parameters, pred)
    divisor = avg_factor if isinstance(avg_factor, Tensor) and reduction == 'mean' else None
    others = (target, score, weight, per_class, divisor)
    name = backend.choose(pred, torch.is_grad_enabled() and require_grad(others))
    if name != 'native':  # whose kernel looks for itself
        target, score = checks.targets_in_range(read, target, score, ignore_index)
    if spec.prepare is not None:
        target, score, weight = prepare(spec.prepare, parameters, pred, target, score, weight, ignore_index)

    scale: Any = loss_weight
    if reduction == 'mean' and divisor is None:
        count = math.prod(read.shape[:-1]) if spec.per_row else read.numel()
        scale = scale / max(count, 1) if avg_factor is None else divided(scale, avg_factor)
    output = 'sum' if reduction != 'none' else 'row' if spec.per_row else 'element'
    return Problem(
        pred, target, score, weight, per_class, divisor, channel,
        spec.name, packed_parameters, activated, ignore_index, float(scale), output, name,
    )  # fmt: skip


def prepare(
    by_spec: Callable, parameters: Mapping[str, Any], pred: Any, target: Tensor, score, weight, ignore_index
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What a spec makes of targets and weights; of targets in [0, 1], where it makes others of them.

    pred may stand for logits: its shape and dtype are asked for.
    """
    prepared = by_spec(pred, target, score, weight, ignore_index, **parameters)
    if prepared[0] is target and prepared[1] is score:
        return prepared
    target, score = checks.targets_in_range(pred, target, score, ignore_index)
    return by_spec(pred, target, score, weight, ignore_index, **parameters)


def packed(spec: Spec, arguments_of_spec: Mapping[str, Any], pred: Tensor) -> tuple[list[float], Tensor | None]:
    """What the point functions take: numbers; or with a vector among them, all as one (parameters, C) tensor."""
    for p in spec.parameters:
        if p.vector and isinstance(arguments_of_spec[p.name], Tensor):
            break
    else:  # class_weight is no vector: it weights rows
        return list(spec.pack(**arguments_of_spec)), None
    dtype, classes = torch.promote_types(pred.dtype, torch.float32), pred.size(-1)
    # In the dtype of the arithmetic before anything is computed from them. To a GPU, without waiting for it.
    in_place = {
        name: value.to(pred.device, dtype, non_blocking=value.is_cpu) if isinstance(value, Tensor) else value
        for name, value in arguments_of_spec.items()
    }
    parameters = spec.pack(**in_place)
    for p in parameters:
        # Two comparisons: where the number of classes is symbolic, a compiler finds it in no tuple.
        if isinstance(p, Tensor) and p.dim() == 1 and p.numel() != 1 and p.numel() != classes:
            raise ValueError(
                f'{p.numel()} values of gamma or alpha for logits of {classes} classes: write one per class'
            )
    # A number is filled in on the device: copied there, it would be waited for.
    planes = [
        p.expand(classes) if isinstance(p, Tensor) else pred.new_full((classes,), p, dtype=dtype) for p in parameters
    ]
    return _factors(spec, arguments_of_spec), torch.stack(planes)


def _factors(spec: Spec, arguments_of_spec: Mapping[str, Any]) -> list[float]:
    """The factors of a loss without its vectors, which change whether they are 0 if they are those of alpha."""
    if isinstance(arguments_of_spec.get('alpha'), Tensor):
        return [0.0]
    numbers = {n: spec.defaults[n] if isinstance(v, Tensor) else v for n, v in arguments_of_spec.items()}
    parameters = spec.pack(**numbers)
    return [float(parameters[k]) for k in spec.factors]


def _made(spec: Spec) -> Callable[..., Tensor]:
    """The public function of a spec."""
    known = {p.name: p for p in spec.parameters}
    common: dict[str, Any] = {'reduction': 'mean', 'avg_factor': None, 'ignore_index': None}
    common.update({'statistics': None} if spec.statistics else {})
    flags: dict[str, Any] = {spec.probabilities: False} if spec.probabilities else {}

    def loss(pred, target, weight=None, **given) -> Tensor:
        pred = arguments.canonical_pred(pred)
        classes = pred.size(-1)
        others = {name: given.pop(name) for name in common if name in given}
        if spec.probabilities is not None:
            given_flag = flag(spec.probabilities, given.pop(spec.probabilities, False))
            others['activated'] = given_flag is (spec.probabilities == 'activated')
        if not given.keys() <= known.keys():
            raise TypeError(unknown(f'{spec.function}()', next(iter(given.keys() - known.keys())), known))
        parameters = {name: check_parameter(p, given.get(name, p.default), classes) for name, p in known.items()}
        return apply(spec, parameters, pred, target, weight, **others)

    positional = list(inspect.signature(loss).parameters.values())[:3]
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in {**spec.defaults, **common, **flags}.items()
    ]
    loss.__signature__ = inspect.Signature([*positional, *keywords])  # type: ignore[attr-defined]
    loss.__name__ = loss.__qualname__ = spec.function
    loss.__doc__ = documentation.of_function(spec)
    return loss


MASKS: Spec = dataclasses.replace(
    SPECS['focal'],
    title='Sigmoid focal loss of masks, each read from the channel of its label,',
    formula='mean over the pixels of alpha_t (1 - p_t)^gamma (-log p_t)',
    parameters=tuple(dataclasses.replace(p, vector=False) for p in SPECS['focal'].parameters),
    per_row=True,
    function='mask_focal_loss',
)
"""The focal loss with one value per instance; its kernels are those of focal."""


def mask_focal_loss(
    pred: Tensor,
    target: Tensor,
    labels: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    gamma: float = MASKS.defaults['gamma'],
    alpha: float | None = MASKS.defaults['alpha'],
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
    activated: bool = False,
) -> Tensor:
    """Sigmoid focal loss of masks, arXiv 1708.02002: one number per instance, the mean over its pixels.

    Args:
        pred: logits (n, C, H, W) or (n, C, P), of which only the channel of each instance's label is read, where it lies,
            and the others get a gradient of zero; or (n, H, W) or (n, P), one mask an instance; float64, float32, float16
            or bfloat16.
        target: masks (n, H, W) or (n, P), values in [0, 1]: float, bool or integer. Of pred's shape where there is no
            channel to pick.
        labels: int64 (n,), in [0, C), where target has one dimension less than pred; may be left out where C = 1.
        weight: one per instance (n,), or one per pixel, of the masks' shape.
        gamma: Focusing exponent; at least 0.
        alpha: Weight of the mask's inside; in [0, 1]; None or a negative number: none.
        reduction: 'none' (one number per instance (n,), in pred's dtype), 'mean' or 'sum' over the instances.
        avg_factor: 'mean' divides by avg_factor + 1.19e-7 instead of n; a number, or a tensor of shape () or (1,).
        activated: pred holds probabilities instead of logits.

    Returns:
        The loss; no instances give 0 with a gradient.

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C) (on a GPU it makes the instance's loss NaN), a number
            outside its range.
        TypeError: a wrong type or dtype.
    """
    pred = arguments.canonical_pred(pred)
    pred, target, channel, weight = arguments.canonical_masks(pred, target, labels, weight)
    given = {'gamma': gamma, 'alpha': alpha}
    return apply(
        MASKS,
        {p.name: check_parameter(p, given[p.name]) for p in MASKS.parameters},
        pred,
        target,
        weight,
        reduction=reduction,
        avg_factor=avg_factor,
        activated=flag('activated', activated),
        loss_weight=1 / max(pred.size(-1), 1),
        channel=channel,
    )


FUNCTIONS: dict[str, Callable[..., Tensor]] = {name: _made(spec) for name, spec in SPECS.items()}
globals().update({function.__name__: function for function in FUNCTIONS.values()})
