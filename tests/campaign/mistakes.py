"""What the kinds of mistakes share: which losses they are made with, and how they are listed."""

from tests.campaign.variants import VARIANTS

LABELS = [name for name in VARIANTS if name != 'mask_focal']
SCORED = [name for name, variant in VARIANTS.items() if variant.scored]
DENSE = [name for name, variant in VARIANTS.items() if variant.dense and name != 'mask_focal']
VECTORS = [name for name, variant in VARIANTS.items() if variant.vectors]
PROBABILITIES = [name for name, variant in VARIANTS.items() if variant.probabilities]
CLASSES = {variant.kind: variant for variant in VARIANTS.values()}
N, C = 4, 3

KINDS = {}
"""A name in words -> function of a Random: (variant or class, the arguments that change, a regular expression)."""


def kind(function):
    KINDS[function.__name__.replace('_', ' ')] = function
    return function
