"""The classes as the registry builds them, with what each must be given."""

from mmdet.registry import MODELS

from tests.variants import VARIANTS

N, C = 24, 5


def built(name, **config):
    """The class in evaluation, where the equalized loss keeps its ratios."""
    return MODELS.build(dict(type=VARIANTS[name].kind) | VARIANTS[name].required_by_class(C) | config).eval()
