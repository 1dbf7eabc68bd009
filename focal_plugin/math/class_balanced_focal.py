"""Class-balanced focal loss. Cui et al., Class-Balanced Loss Based on Effective Number of Samples, arXiv 1901.05555."""

from __future__ import annotations
from dataclasses import replace

import torch

from focal_plugin import row_weights
from focal_plugin.math import focal
from focal_plugin.math.spec import GAMMA, REQUIRED, Parameter, Spec
from focal_plugin.tracing import kept_unless_watched


def pack(samples_per_class, class_beta, gamma):
    return gamma, 1.0, 1.0


def prepare(pred, target, score, weight, ignore_index, samples_per_class, class_beta, gamma):
    """Multiplies the weight of each row by that of its label."""
    if target.dim() == pred.dim():
        raise ValueError(
            'class_balanced_focal_loss weights per row by its label: write labels instead of a dense target'
        )
    classes = pred.size(-1)
    if len(samples_per_class) != classes:
        raise ValueError(
            f'samples_per_class holds {len(samples_per_class)} numbers for logits of {classes} classes: write one per class'
        )
    dtype = torch.promote_types(pred.dtype, torch.float32)
    factors = _factors(samples_per_class, class_beta, pred.device, dtype)
    return target, score, row_weights.times(pred, target, factors, weight)


@kept_unless_watched
def _factors(
    samples_per_class: tuple[float, ...], class_beta: float, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """(1 - beta) / (1 - beta^n) of each class, scaled to the sum C, and 1 for the background."""
    samples, beta = (torch.tensor(x, dtype=torch.float64, device='cpu') for x in (samples_per_class, class_beta))
    # -expm1(n log beta) is 1 - beta^n without its cancellation; beta 0 leaves 1.
    effective = -torch.expm1(samples * beta.log())
    factor = 1 / effective
    return torch.cat([factor * (len(samples) / factor.sum()), factor.new_ones(1)]).to(device, dtype)


SPEC = Spec(
    name='class_balanced_focal',
    title='Class-balanced focal loss of `Class-Balanced Loss Based on Effective Number of Samples`, each row weighted '
    'by its label, with n the samples of a class, background rows by 1',
    paper='1901.05555',
    formula='w (1 - p_t)^gamma (-log p_t),  w = (1 - beta) / (1 - beta^n), scaled to the sum C over the classes',
    parameters=(
        Parameter('samples_per_class', REQUIRED, 'Samples of each class in the training set', low=1, sequence=True),
        Parameter('class_beta', 0.9999, 'beta of the effective number of samples', high=0.99999999),
        replace(GAMMA, vector=False),
    ),
    pack=pack,
    factors=(1, 2),
    value=focal.value,
    value_and_grad=focal.value_and_grad,
    prepare=prepare,
)
