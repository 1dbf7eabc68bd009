"""Imports put off until a name of the module is used: importing focal_plugin must not import Triton."""

import importlib
import types


class LazyModule(types.ModuleType):
    """Stands for a module and imports it when one of its attributes is first read."""

    def __getattr__(self, attribute: str):
        return getattr(importlib.import_module(self.__name__), attribute)


tl = LazyModule('triton.language')
prim = LazyModule('focal_plugin.kernels.triton.primitives')


def resolve(namespace: dict) -> None:
    """Puts the modules themselves where LazyModules stand in a namespace: Triton looks for triton.language by identity."""
    for name, value in namespace.items():
        if isinstance(value, LazyModule):
            namespace[name] = importlib.import_module(value.__name__)
