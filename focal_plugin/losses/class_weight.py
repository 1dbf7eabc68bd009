"""class_weight, an argument of every class with labels: a factor of a row's loss by its label."""

from __future__ import annotations
from dataclasses import replace
from numbers import Real

import torch
from torch import Tensor

from focal_plugin import row_weights
from focal_plugin.math import Spec
from focal_plugin.math.spec import ALPHA, Parameter
from focal_plugin.parameters import check_parameter

PARAMETER = Parameter('class_weight', None, "Factor of a row's loss by its label", sequence=True, optional=True)


def checked(value) -> Tensor | None:
    """The numbers of a class_weight, float64, or None."""
    if isinstance(value, Real):
        raise TypeError(
            f'class_weight must hold one number per class, C, or C + 1 with the background last, got {value!r} '
            f"(only mmdet's DETRHead itself makes such a list of one number): write loss_weight for a factor of all, or "
            f'_delete_=True to leave out what a config inherits'
        )
    value = check_parameter(PARAMETER, value)
    return None if value is None else torch.tensor(value, dtype=torch.float64, device='cpu')


def checked_beside(parameter: Parameter, value, labelled: bool):
    """check_parameter, which names class_weight to whoever writes weights of classes into alpha."""
    try:
        return check_parameter(parameter, value)
    except ValueError as error:
        if not labelled or not weights_positives(parameter):
            raise
        raise ValueError(
            f'{error} (negatives weigh 1 - alpha): write factors of the classes into class_weight, one of all into '
            f'loss_weight'
        ) from error


def weights_positives(parameter: Parameter) -> bool:
    """Whether an argument is alpha as in the focal loss; others of that name are something else."""
    return parameter.name == ALPHA.name and parameter.doc == ALPHA.doc


def weighted(spec: Spec) -> Spec:
    """A spec that takes class_weight too."""

    def pack(class_weight, **parameters):
        return spec.pack(**parameters)

    def prepare(pred, target, score, weight, ignore_index, class_weight, **parameters):
        if target.dim() == pred.dim():
            raise ValueError(
                'class_weight weights per row by its label, and the target is dense: write the factors into weight instead'
            )
        given, classes, with_background = class_weight.numel(), pred.size(-1), spec.family == 'elementwise'
        if given != classes and not (with_background and given == classes + 1):
            more = f', or {classes + 1} with the background last' * with_background
            raise ValueError(
                f'class_weight holds {given} numbers for logits of {classes} classes: write {classes}{more}'
            )
        if spec.prepare is not None:
            target, score, weight = spec.prepare(pred, target, score, weight, ignore_index, **parameters)
        return target, score, row_weights.times(pred, target, class_weight, weight)

    return replace(spec, parameters=(*spec.parameters, PARAMETER), pack=pack, prepare=prepare)
