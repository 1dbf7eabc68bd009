"""Import this instead of focal_plugin and mmdet's own names resolve to the fused classes: configs stay untouched.

    custom_imports = dict(imports=['focal_plugin.override'], allow_failed_imports=False)

It covers every mmdet loss that a class here ``replaces``, however a config names it: ``type='FocalLoss'``, or
``type=FocalLoss`` with the class imported from mmdet.models.losses, the module that defines it, or mmdet.models. In a
pure Python config mmengine reads no custom_imports, so there the program that starts the training imports this module.

mmdet's heads keep mmdet's classes for their isinstance checks, which the fused classes pass. Out of reach is a class
object that other code had imported before: it stays mmdet's and keeps working, pickling excepted, and a warning in the log
names it. Code that imports the name later sees the fused class, in isinstance checks of its own too: a head from elsewhere
that asks for a QualityFocalLoss recognises FusedQualityFocalLoss alone, so where it has another loss of qualities, import
the head before this module. Every fused loss of qualities passes for mmdet's QualityFocalLoss, so GroundingDINOHead, which
refuses that one, refuses a VarifocalLoss too: leave this module out where it has one.

Where there is a GPU and neither Triton nor NVRTC to compile the kernels for it, nothing is replaced, since mmdet's losses
are the faster ones there; a warning in the log says so.
"""

from __future__ import annotations
import logging
import sys

import mmdet.models  # noqa: F401  all of it: its heads have to get mmdet's own classes
import torch
from mmdet.registry import MODELS
from torch import nn

from focal_plugin import backend, losses

logger = logging.getLogger('focal_plugin')

REPLACED: dict[str, type[nn.Module]] = {
    kind.replaces: kind
    for kind in vars(losses).values()
    if isinstance(kind, type) and issubclass(kind, losses.FusedLoss) and kind.replaces and 'replaces' in vars(kind)
}
"""mmdet's name -> the fused class."""

if torch.cuda.is_available() and backend.lacks_compiler('cuda'):
    REPLACED.clear()
    logger.warning('%s: focal_plugin.override leaves mmdet its own losses, which are faster here', backend.NO_COMPILER)


def _put(path: str, names) -> None:
    """Shows a module's importers the fused classes.

    Properties of the module's class: code inside the module goes on with mmdet's names, or the ``super(FocalLoss,
    self)`` of mmdet's classes would fail.
    """
    module = sys.modules[path]
    fused = {name: _property(REPLACED[name]) for name in names}
    module.__class__ = type('OverriddenModule', (type(module),), fused)


def _property(kind: type) -> property:
    return property(lambda _: kind)


def _warn_of_holders(name: str, original: type) -> None:
    """Names the modules outside mmdet.models and this package that have mmdet's class already."""
    modules = {id(module): (path, module) for path, module in reversed(sys.modules.items())}  # a module has aliases
    for path, module in modules.values():
        if path.startswith(('mmdet.models', 'focal_plugin')):
            continue
        if getattr(module, '__dict__', {}).get(name) is original:
            logger.warning(
                "%s imported mmdet's %s before focal_plugin.override: there the name stays mmdet's own class",
                path,
                name,
            )


for _name, _kind in REPLACED.items():
    MODELS.register_module(name=_name, module=_kind, force=True)
    _original = next(base for base in _kind.__mro__ if base.__name__ == _name and base.__module__.startswith('mmdet.'))
    _put(_original.__module__, [_name])
    _warn_of_holders(_name, _original)
for _path in ('mmdet.models', 'mmdet.models.losses'):
    _put(_path, REPLACED)
