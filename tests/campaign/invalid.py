"""Calls that must be refused with a ValueError or TypeError that names the argument."""

from focal_plugin import functional, losses
from tests.campaign import mistaken_tensors, mistaken_values
from tests.campaign.mistakes import CLASSES, KINDS, C, N
from tests.campaign.tensors import Random
from tests.campaign.variants import VARIANTS

MODULES = (mistaken_tensors, mistaken_values)
"""Importing them lists their kinds."""


def sound(random: Random, variant: str) -> dict:
    """The arguments of a call that nothing is wrong with."""
    arguments = {'pred': random.normal((N, C)).float(), 'target': random.integers(C, (N,))}
    if variant == 'mask_focal':
        arguments = {'pred': random.normal((N, C)).float(), 'target': random.integers(2, (N, C))}
    if variant == 'gaussian_focal':  # probabilities, by default
        arguments['pred'] = random.uniform((N, C)).float()
    return arguments | VARIANTS[variant].required(C)


def refusal(random: Random, name: str) -> tuple[str, dict, str]:
    """(function, arguments, a regular expression of which the message must hold a match)."""
    variant, changed, words = KINDS[name](random)
    return variant, (changed if variant in CLASSES else sound(random, variant) | changed), words


def invoke(variant: str, arguments: dict):
    """Calls the function, or builds the class."""
    callee = getattr(losses, variant) if variant in CLASSES else getattr(functional, VARIANTS[variant].function)
    return callee(**arguments)
