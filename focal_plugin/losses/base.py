"""What the registry classes have in common: constructor, call, and what happens to arguments that are not theirs."""

from __future__ import annotations
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from focal_plugin import arguments, documentation, functional
from focal_plugin.axes import spread
from focal_plugin.backend import HAS_COMPILER
from focal_plugin.compatibility import in_one_graph, is_compiling
from focal_plugin.kernels.problem import Problem
from focal_plugin.losses import class_weight, inherited, mmcv_op
from focal_plugin.math import Spec
from focal_plugin.math.spec import REQUIRED, Parameter
from focal_plugin.ops import autograd, prepared
from focal_plugin.parameters import flag
from focal_plugin.rows import Rows
from focal_plugin.tensors import of_sums

_COMMON = ('reduction', 'loss_weight')
_OF_LABELS = ('ignore_index', 'class_weight')


class FusedLoss(nn.Module):
    """Base of the registry classes; hooks and tools look for it.

    A subclass names its spec; constructor and docstring are made from it. Where it also subclasses mmdet's class of the
    same loss, positional arguments have mmdet's order. Its buffers keep their dtype under half(), bfloat16() and to(dtype):
    they are sums and parameters of the loss, not weights of the model.

    Attributes:
        spec: the variant.
        extra_parameters: arguments of the class beside those of its spec.
        withheld: arguments of its spec that it sets itself.
        labelled: a target of labels says what each row is, so that ignore_index and class_weight are arguments.
        replaces: mmdet's name that focal_plugin.override gives to the class, or None.
        given_arguments: the arguments of the variant that the config gave.
        ignored_arguments: those that only other variants know.
    """

    spec: Spec
    extra_parameters: tuple[Parameter, ...] = ()
    withheld: tuple[str, ...] = ()
    labelled: bool = True
    replaces: str | None = None
    use_sigmoid: bool = True
    reduction: str
    loss_weight: float
    ignore_index: int | None
    class_weight: Tensor | None
    given_arguments: dict[str, Any]
    ignored_arguments: dict[str, Any]
    _own: list[Parameter]
    _defaults: dict[str, Any]
    _weighted_spec: Spec
    _settings: Callable[[FusedLoss], Any]
    __signature__: inspect.Signature

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if 'spec' not in vars(cls):
            return
        spec, of_labels = cls.spec, _OF_LABELS * cls.labelled
        cls._own = [p for p in (*cls.extra_parameters, *spec.parameters) if p.name not in cls.withheld]
        ours = {'use_sigmoid': cls.use_sigmoid, **{p.name: p.default for p in cls._own}, 'reduction': 'mean'}
        ours['loss_weight'] = 1.0
        if spec.probabilities is not None:
            ours[spec.probabilities] = False
        cls._defaults = {**ours, **dict.fromkeys(of_labels)}
        cls._weighted_spec = class_weight.weighted(spec)
        flags = () if spec.probabilities is None else (spec.probabilities,)
        cls._settings = operator.attrgetter(*spec.defaults, *flags, 'loss_weight', *_OF_LABELS)
        positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        kinds = {**dict.fromkeys(cls._order(ours), positional), **dict.fromkeys(of_labels, keyword)}
        cls.__signature__ = inspect.Signature(
            [inspect.Parameter(name, kind, default=cls._defaults[name]) for name, kind in kinds.items()]
        )
        cls.__doc__ = documentation.of_class(spec, inspect.cleandoc(cls.__doc__ or ''), cls._own, cls.labelled)

    @classmethod
    def _order(cls, ours: Mapping[str, Any]) -> list[str]:
        """The constructor's positional arguments: mmdet's first in mmdet's order, then those that must be given."""
        bases = (base for base in cls.__mro__ if not issubclass(base, FusedLoss) and base is not nn.Module)
        base = next((base for base in bases if issubclass(base, nn.Module)), None)
        theirs = [] if base is None else [name for name in inspect.signature(base).parameters if name in ours]
        return list(dict.fromkeys([*theirs, *sorted(ours, key=lambda name: ours[name] is not REQUIRED)]))

    def __init__(self, *args, **given) -> None:
        nn.Module.__init__(self)
        kind, spec, known = type(self).__name__, self.spec, self._defaults
        order = [p.name for p in self.__signature__.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        if len(args) > len(order):
            raise TypeError(f'{kind} takes at most {len(order)} arguments, got {len(args)}')
        by_position = dict(zip(order, args))
        if twice := given.keys() & by_position.keys():
            raise TypeError(f'{kind} got {", ".join(sorted(twice))} twice, by position and by name')
        given.update(by_position)
        self.ignored_arguments = {name: value for name, value in given.items() if name not in known}
        inherited.check(type(self), self.ignored_arguments, list(known))
        values = {**known, **{name: value for name, value in given.items() if name in known}}
        missing = [name for name, value in values.items() if value is REQUIRED]
        if missing:
            raise TypeError(f'{kind} needs {", ".join(missing)}')
        self._set_common(**{name: values[name] for name in ('use_sigmoid', *_COMMON)})
        self.ignore_index = arguments.canonical_ignore_index(values.get('ignore_index'))
        self._set_parameter('class_weight', class_weight.checked(values.get('class_weight')))
        if spec.probabilities:
            setattr(self, spec.probabilities, flag(spec.probabilities, values[spec.probabilities]))
        for parameter in self._own:
            value = class_weight.checked_beside(parameter, values[parameter.name], self.labelled)
            self._set_parameter(parameter.name, value)
        self.given_arguments = {name: given[name] for name in spec.defaults if name in given}

    def _set_common(self, use_sigmoid: bool, reduction: str, loss_weight: float) -> None:
        kind = type(self)
        if use_sigmoid is not kind.use_sigmoid:
            activation = 'sigmoid' if kind.use_sigmoid else 'softmax'
            raise ValueError(
                f'{kind.__name__} is a {activation} loss: write use_sigmoid={kind.use_sigmoid}, got {use_sigmoid!r}. '
                f'(Heads read use_sigmoid to choose between num_classes channels with a sigmoid and num_classes + 1 '
                f'with a softmax.)'
            )
        if not arguments.is_reduction(reduction):
            raise ValueError(f'reduction must be one of {arguments.REDUCTIONS}, got {reduction!r}')
        self.use_sigmoid, self.reduction = use_sigmoid, reduction
        self.loss_weight = arguments.canonical_loss_weight(loss_weight)

    def _set_parameter(self, name: str, value) -> None:
        """Keeps a parameter: a number as an attribute, a vector as a buffer that checkpoints don't hold."""
        if isinstance(value, Tensor):
            self.register_buffer(name, value, persistent=False)
        else:
            setattr(self, name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FusedLoss:
        def keeping_dtype(tensor: Tensor) -> Tensor:
            if tensor.dtype == torch.float64:
                tensor = tensor.to(of_sums(fn(tensor.float()).device))  # which may have none
            changed = fn(tensor)
            return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)

        return super()._apply(keeping_dtype, recurse)

    @property
    def applied_spec(self) -> Spec:
        """The spec, with class_weight among its arguments where it was given."""
        return self.spec if self.class_weight is None else self._weighted_spec

    @property
    def takes_probabilities(self) -> bool:
        """Whether a call hands over probabilities instead of logits."""
        flag = self.spec.probabilities
        return flag is not None and getattr(self, flag) is (flag == 'activated')

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            pred (Tensor): Logits with shape (N, C), or any shape (..., C) and strides.
            target (Tensor or tuple[Tensor]): Labels with shape (N,), background C; dense values in [0, 1] of pred's
                shape; for losses of quality also (labels, scores). ignore_index and class_weight need labels.
            weight (Tensor, optional): With shape (N,), (N, 1), (N, C), (N * C,) or (1, C); in general one per row, or with
                pred's number of dimensions, each of size 1 or pred's.
            avg_factor (float or Tensor, optional): What the sum is divided by, instead of the number of elements (of
                rows, for losses whose 'none' is one value per row).
            reduction_override (str, optional): Replaces reduction for this call.

        Returns:
            Tensor: The loss; float32 where it is reduced.
        """
        return self.run(pred, target, weight, avg_factor, reduction_override)

    @in_one_graph
    def run(self, pred, target, weight, avg_factor, reduction_override, *, statistics=None, **given) -> Tensor:
        """The loss, or a part of it, with statistics, channels and parameters of this call."""
        reduction = self.reduction if reduction_override is None else arguments.checked_override(reduction_override)
        if not HAS_COMPILER and mmcv_op.serves(self, pred, target, weight, {'statistics': statistics, **given}):
            pred = pred.tensor() if isinstance(pred, Rows) else pred
            return super().forward(pred, target, weight, avg_factor, reduction_override)
        if isinstance(pred, Rows):
            if reduction != 'none':
                return self._of_levels(pred, target, weight, avg_factor, reduction, statistics, **given)
            pred = pred.tensor()
        # Elsewhere than on a CPU nothing is prepared.
        if given or statistics is not None or is_compiling() or not getattr(pred, 'is_cpu', False):
            return autograd.loss_of(self._problem(pred, target, weight, avg_factor, reduction, **given), statistics)
        return prepared.loss_of(
            (type(self), reduction, self._settings(self)),
            self.loss_weight,
            *(pred, target, weight, avg_factor),
            lambda: self._problem(pred, target, weight, avg_factor, reduction),
        )

    def _problem(self, pred, target, weight, avg_factor, reduction, channel=None, part=1.0, **changed) -> Problem:
        spec = self.applied_spec
        if weight is not None and spec.family == 'elementwise' and isinstance(pred, Tensor):
            weight = spread(pred, weight)
        pred = arguments.canonical_pred(pred)
        return functional.problem_of(
            spec,
            {name: changed[name] if name in changed else getattr(self, name) for name in spec.defaults},
            pred,
            target,
            weight,
            reduction=reduction,
            avg_factor=avg_factor,
            ignore_index=self.ignore_index,
            activated=self.takes_probabilities,
            loss_weight=self.loss_weight * part,
            channel=channel,
        )

    def _of_levels(self, rows: Rows, target, weight, avg_factor, reduction, statistics, **changed) -> Tensor:
        """The reduced loss of logits that lie in maps: the sum of the levels' sums."""
        part = 1.0
        if reduction == 'mean' and avg_factor is None:
            count = rows.shape[0] if self.spec.per_row else math.prod(rows.shape)
            reduction, part = 'sum', 1 / max(count, 1)
        levels = rows.parts(target, weight)
        problems = [self._problem(*level, avg_factor, reduction, part=part, **changed) for level in levels]
        return rows.total(problems, statistics)

    def extra_repr(self) -> str:
        shown = {name: getattr(self, name) for name in (*self.spec.defaults, *_COMMON)}
        if self.ignore_index is not None:
            shown['ignore_index'] = self.ignore_index
        return ', '.join(f'{name}={value!r}' for name, value in shown.items() if not isinstance(value, Tensor))
