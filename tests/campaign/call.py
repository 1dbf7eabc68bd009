"""One call of a loss: its arguments, how it is made, and how it is written down."""

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import focal_plugin
from focal_plugin import functional, losses
from tests.campaign.tensors import in_memory
from tests.campaign.variants import VARIANTS
from tests.oracle.inputs import placed
from tests.variants.variant import Variant


@dataclass
class Call:
    """The arguments of a call and of its backward.

    Attributes:
        pred: logits, or probabilities where ``probabilities``.
        target: labels, (labels, scores), or dense values.
        labels: the channels of a mask loss that picks them.
        given: the arguments of the variant that are passed; the others keep their defaults.
        upstream: the gradient of the loss, of its shape and dtype.
        requires: which of 'weight', 'target' (dense values or scores) and 'avg_factor' require a gradient too.
        second: what the gradient is multiplied by and differentiated again, of pred's shape; or None.
        way: 'backward', 'vjp' (torch.func) or 'checkpoint' (non-reentrant).
        statistics: sums of absolute gradients are asked for.
        wide: torch's default dtype is float64 while it runs.
        by_class: through the registry class, with loss_weight, instead of the function.
    """

    variant: str
    pred: Tensor
    target: Tensor | tuple[Tensor, Tensor]
    labels: Tensor | None = None
    weight: Tensor | None = None
    given: dict[str, Any] = field(default_factory=dict)
    reduction: str = 'mean'
    avg_factor: Any = None
    ignore_index: Any = None
    probabilities: bool = False
    upstream: Tensor | None = None
    requires: tuple[str, ...] = ()
    second: Tensor | None = None
    way: str = 'backward'
    statistics: bool = False
    wide: bool = False
    by_class: bool = False
    loss_weight: float = 1.0
    layouts: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> Variant:
        return VARIANTS[self.variant]

    def on(self, device: str, looks: bool) -> 'Call':
        """The same call with its tensors on a device; vectors of classes, as in a config, stay where they are.

        Args:
            looks: whether a backend finds an IoU that was rounded to above 1.
        """
        names = ('pred', 'target', 'labels', 'weight', 'avg_factor', 'upstream', 'second')
        there = replace(self, **{name: placed(getattr(self, name), device) for name in names})
        if looks or not isinstance(there.target, tuple):
            return there
        labels, scores = there.target
        return replace(there, target=(labels, scores.clone().clamp_(max=1)))

    @property
    def output_dtype(self) -> torch.dtype:
        """Of the loss: pred's where it is not reduced, at least float32 where it is."""
        return self.pred.dtype if self.reduction == 'none' else self.arithmetic

    @property
    def arithmetic(self) -> torch.dtype:
        return torch.promote_types(self.pred.dtype, torch.float32)

    @property
    def output_shape(self) -> tuple[int, ...]:
        if self.reduction == 'none':
            if self.variant == 'mask_focal':
                return tuple(self.pred.shape[:1])
            return tuple(self.pred.shape[:-1] if self.spec.per_row else self.pred.shape)
        by_one = self.reduction == 'mean' and isinstance(self.avg_factor, Tensor)
        return tuple(self.avg_factor.shape) if by_one else ()


class Result(NamedTuple):
    loss: Tensor
    grad: Tensor
    others: dict[str, Tensor]
    second: Tensor | None
    again: Tensor | None
    statistics: Tensor | None


def run(call: Call, backend: str, twice: bool = False) -> Result:
    """Value and gradients of a call; ``twice`` makes the backward a second time, with the graph retained."""
    with focal_plugin.use_backend(backend), _default_dtype(call):
        leaf = call.pred.detach().requires_grad_()
        target, score = call.target if isinstance(call.target, tuple) else (call.target, None)
        leaves = {'weight': call.weight, 'target': target if score is None else score, 'avg_factor': call.avg_factor}
        leaves |= {name: leaves[name].detach().requires_grad_() for name in call.requires}
        statistics = None
        if call.statistics:
            statistics = torch.zeros(2, call.pred.size(-1), dtype=torch.float64, device=call.pred.device)

        def loss(pred: Tensor) -> Tensor:
            values = leaves['target'] if score is None else (target, leaves['target'])
            return invoke(call, pred, values, leaves['weight'], leaves['avg_factor'], statistics)

        if call.way == 'vjp':
            value, pull = torch.func.vjp(loss, leaf.detach())
            return Result(value, pull(call.upstream)[0], {}, None, None, None)
        value = checkpoint(loss, leaf, use_reentrant=False) if call.way == 'checkpoint' else loss(leaf)
        inputs = [leaf, *(leaves[name] for name in call.requires)]
        again = second = None
        if call.second is not None:
            grad, *others = torch.autograd.grad(value, inputs, call.upstream, create_graph=True, materialize_grads=True)
            (second,) = torch.autograd.grad((grad * call.second.to(grad.dtype)).sum(), leaf, materialize_grads=True)
        else:
            grad, *others = torch.autograd.grad(
                value, inputs, call.upstream, retain_graph=twice, materialize_grads=True
            )
            if twice:
                (again,) = torch.autograd.grad(value, leaf, call.upstream)
        return Result(
            value.detach(), grad.detach(), dict(zip(call.requires, others, strict=True)), second, again, statistics
        )


def value_of(call: Call, backend: str) -> Tensor:
    """The loss under no_grad."""
    with focal_plugin.use_backend(backend), _default_dtype(call), torch.no_grad():
        return invoke(call, call.pred, call.target, call.weight, call.avg_factor)


def invoke(call: Call, pred, target, weight, avg_factor, statistics=None) -> Tensor:
    arguments = dict(call.given)
    if call.spec.probabilities == 'activated' and call.probabilities:
        arguments['activated'] = True
    if call.spec.probabilities == 'from_logits' and not call.probabilities:
        arguments['from_logits'] = True
    operands = {'labels': call.labels} if call.variant == 'mask_focal' else {}
    operands |= {'weight': weight, 'avg_factor': avg_factor}
    if call.by_class:
        arguments = call.spec.required_by_class(pred.size(-1)) | arguments
        if call.ignore_index is not None:
            arguments['ignore_index'] = call.ignore_index
        kind = getattr(losses, call.spec.kind)
        loss = kind(**arguments, reduction=call.reduction, loss_weight=call.loss_weight).to(pred.device)
        return loss(pred, target, **operands)
    if call.spec.silences:
        arguments['ignore_index'] = call.ignore_index
    if call.statistics:
        arguments['statistics'] = statistics
    return getattr(functional, call.spec.function)(pred, target, reduction=call.reduction, **operands, **arguments)


@contextlib.contextmanager
def _default_dtype(call: Call):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if call.wide else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def written(call: Call) -> str:
    """The call as Python, each tensor in full where it is small, else in words."""
    target = call.target if isinstance(call.target, tuple) else (call.target,)
    words = ', '.join(_text(each, call.layouts.get('target')) for each in target)
    parts = [_text(call.pred, call.layouts.get('pred')), f'({words})' if len(target) > 1 else words]
    named = {'labels': call.labels, 'weight': call.weight, 'avg_factor': call.avg_factor, **call.given}
    named |= {'reduction': call.reduction, 'ignore_index': call.ignore_index}
    for name, value in named.items():
        if value is not None or name in call.given:
            parts.append(f'{name}={_text(value, call.layouts.get(name))}')
    if call.probabilities:
        parts.append('probabilities')
    if call.by_class:
        parts.append(f'loss_weight={call.loss_weight}')
    extra = [f'upstream {_text(call.upstream, call.layouts.get("upstream"))}']
    extra += [f'{name} requires a gradient' for name in call.requires]
    extra += [call.way] * (call.way != 'backward') + ['with statistics'] * call.statistics
    extra += ['differentiated twice'] * (call.second is not None) + ['default dtype float64'] * call.wide
    name = call.spec.kind if call.by_class else call.spec.function
    return f'{name}({", ".join(parts)}); {", ".join(extra)}'


def _text(value, layout: str | None = None) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f'[{value[0]}, {value[1]}, ..., {value[-1]}]'
    if not isinstance(value, Tensor):
        return f'{type(value).__name__}({value})' if isinstance(value, np.generic) else repr(value)
    dtype = str(value.dtype).removeprefix('torch.')
    shape = tuple(value.shape)
    text = f'{dtype}{shape}' if value.numel() > 8 else f'tensor({in_memory(value).tolist()}, {dtype})'
    return text if layout in (None, 'contiguous') else f'{text} [{layout}]'
