"""The registry classes, one file for each variant beside what they share; importing this package registers them in mmdet."""

from __future__ import annotations
import importlib
import pkgutil

from focal_plugin.losses.base import FusedLoss
from focal_plugin.math import SPECS

_modules = [importlib.import_module(f'{__name__}.{module.name}') for module in pkgutil.iter_modules(__path__)]
_classes = {
    name: value
    for module in _modules
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, FusedLoss) and value.__module__ == module.__name__
}
globals().update(_classes)

CLASSES: dict[str, type[FusedLoss]] = {
    spec: kind for kind in _classes.values() if (spec := kind.__module__.rpartition('.')[2]) in SPECS
}
"""The class of each spec."""

__all__ = ['CLASSES', *_classes]
