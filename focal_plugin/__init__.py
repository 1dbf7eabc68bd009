"""Fused sigmoid focal losses for MMDetection. Importing this package registers them."""

import importlib.util
from pathlib import Path

from focal_plugin import functional
from focal_plugin.backend import use_backend
from focal_plugin.version import __version__

__all__ = ['__version__', 'config_dir', 'functional', 'use_backend']

# Without mmdet the functions still serve.
if importlib.util.find_spec('mmdet') is not None:
    from focal_plugin import detectors, heads, hooks, losses, match_costs

    __all__ += ['detectors', 'heads', 'hooks', 'losses', 'match_costs']
if importlib.util.find_spec('mmengine') is not None:
    from focal_plugin import segmentation

    __all__ += ['segmentation']


def config_dir() -> str:
    """The folder of the configs that ship with the package."""
    package = Path(__file__).parent
    # An editable install leaves them where the sources have them.
    return str(next(path for path in (package / 'configs', package.parent / 'configs') if path.is_dir()))
