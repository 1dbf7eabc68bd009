"""Equalized focal loss. Li et al., Equalized Focal Loss for Dense Long-Tailed Object Detection, arXiv 2201.02593."""

from dataclasses import replace

from focal_plugin.math import focal
from focal_plugin.math.spec import ALPHA, GAMMA, Parameter, Spec


def pack(gamma, alpha, scale, ratio):
    of_class = gamma + scale * (1 - ratio)
    positive, negative = focal.by_target(alpha)
    return of_class, positive * (of_class / gamma), negative * (of_class / gamma)


SPEC = Spec(
    name='equalized_focal',
    title='Equalized focal loss of `Equalized Focal Loss for Dense Long-Tailed Object Detection`, with r of each class the '
    'ratio of the gradients that its positives and negatives have given',
    paper='2201.02593',
    formula='(g / gamma) alpha_t (1 - p_t)^g (-log p_t),  g = gamma + scale (1 - r)',
    parameters=(
        replace(GAMMA, above=True, vector=False),
        replace(ALPHA, vector=False),
        Parameter('scale', 8.0, 'How much the exponent of a class without positives rises'),
        Parameter('ratio', 1.0, 'r of each class', high=1, vector=True),
    ),
    pack=pack,
    factors=(1, 2),
    value=focal.value,
    value_and_grad=focal.value_and_grad,
    statistics=True,
)
