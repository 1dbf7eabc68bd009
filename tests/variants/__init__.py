"""The losses as the tests know them, from their papers. Each module here that defines VARIANT is one, found by itself."""

import importlib
import pkgutil

from tests.variants.variant import Variant

VARIANTS: dict[str, Variant] = {
    module.name: variant
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith('test_')
    and (variant := getattr(importlib.import_module(f'{__name__}.{module.name}'), 'VARIANT', None)) is not None
}
POINTS = [(name, reason) for name, variant in VARIANTS.items() if variant.point for reason in variant.settings]
"""Each sigmoid variant with each of its settings."""
