"""The maths of every variant. Each module here that defines SPEC is one."""

from __future__ import annotations
import importlib
import pkgutil

from focal_plugin.math.spec import Spec

SPECS: dict[str, Spec] = {
    spec.name: spec
    for module in pkgutil.iter_modules(__path__)
    if (spec := getattr(importlib.import_module(f'{__name__}.{module.name}'), 'SPEC', None)) is not None
}
