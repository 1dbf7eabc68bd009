"""Softmax focal loss. Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, over a softmax.

With the margin d = x_y - log sum exp(x_j) over j != y, p_y = sigmoid(d): the loss of a row is exactly the sigmoid focal
loss of the logit d as a positive, so that its point functions serve, and nothing cancels. The row-wise family computes d
and spreads the derivative: L'(d) for x_y, -L'(d) exp(x_j) / sum exp(x_k), k != y, for the others.
"""

from focal_plugin.math import focal
from focal_plugin.math.spec import GAMMA, Parameter, Spec


def pack(gamma, alpha):
    return gamma, 1.0 if alpha is None else alpha, 0.0  # the last is that of negatives: a margin is none


SPEC = Spec(
    name='softmax_focal',
    title='Focal loss of `Focal Loss for Dense Object Detection` over a softmax',
    paper='1708.02002',
    formula='alpha_y (1 - p_y)^gamma (-log p_y)',
    parameters=(
        GAMMA,
        Parameter('alpha', 0.25, "Factor of a row's loss, the one of its label", vector=True, optional=True),
    ),
    pack=pack,
    factors=(1,),
    value=focal.value,
    value_and_grad=focal.value_and_grad,
    family='rowwise',
    per_row=True,
)
