"""Focal loss over a softmax. Its oracle is tests/oracle/softmax.py: what surrounds it is another family of kernels."""

from tests.variants.variant import GAMMA, PER_CLASS, Variant

VARIANT = Variant(
    kind='FusedSoftmaxFocalLoss',
    function='softmax_focal_loss',
    tried={'gamma': GAMMA, 'alpha': (0.25, 0, 0.5, 1, None)},
    vectors=PER_CLASS,
    per_row=True,
    dense=False,
    passes=26,
)
