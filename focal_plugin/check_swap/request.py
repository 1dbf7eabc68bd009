"""What a swap of losses starts from: the loss as it is written on a command line, and the config that gets it."""

from __future__ import annotations
import ast
import copy
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from focal_plugin.check_swap import sites
from focal_plugin.losses.base import FusedLoss


class UsageError(Exception):
    """What the user has to write otherwise."""


@dataclass(frozen=True)
class Loss:
    """A registry class and the arguments that are given to it, as written on the command line: NAME,key=value,..."""

    text: str
    name: str
    arguments: dict[str, Any] = field(hash=False)


def parse_loss(text: str) -> Loss:
    """Reads NAME or NAME,key=value,...; UsageError says what is wrong, with a suggestion for an unknown name."""
    name, _, rest = text.partition(',')
    if not name or MODELS.get(name) is None:
        raise UsageError(f'no loss is called {name!r}{suggestion(name, loss_names())}')
    try:
        call = ast.parse(f'f({rest})', mode='eval').body
        if not isinstance(call, ast.Call) or call.args or not all(keyword.arg for keyword in call.keywords):
            raise ValueError('more than names and values')
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        values = 'numbers, lists, None, True or False'
        raise UsageError(f'{text!r}: write NAME or NAME,key=value,... with {values} as values') from None
    return Loss(text, name, arguments)


def loss_names() -> list[str]:
    """The losses of mmdet and the fused ones."""
    return sorted(
        name
        for name, kind in MODELS.module_dict.items()
        if isinstance(kind, type)  # functions are registered too
        and (issubclass(kind, FusedLoss) or kind.__module__.startswith('mmdet.models.losses'))
    )


def suggestion(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, cutoff=0.5) or [other for other in names if other.startswith('Fused')]
    return f'. Did you mean {" or ".join(near)}?'


def read_config(path: str, options: dict | None, needed: tuple[str, ...] = ('model',)) -> Config:
    """The config, its own modules and mmdet's imported; UsageError where it can't be read or lacks what is needed."""
    register_all_modules(init_default_scope=True)
    if not Path(path).is_file():
        raise UsageError(f'{path}: no such file')
    try:
        config = Config.fromfile(path)
        config.merge_from_dict(options or {})
    except Exception as error:  # a config is code, which may raise anything
        raise UsageError(f'{path} is no config that can be read: {message(error)}') from error
    missing = [key for key in needed if not config.get(key)]
    if missing:
        raise UsageError(f'{path}: the config has no {", ".join(missing)}')
    return config


def swapped(config: Config, loss: Loss, only: str) -> Config:
    """The config with the loss wherever a classification loss stands, and focal_plugin imported.

    What stands beside the type stays, as where a config that inherits this one writes loss_cls=dict(type=NAME, ...).
    """
    config = copy.deepcopy(config)
    # Configs of another scope (mmyolo's, mmrotate's) find mmdet's classes, and these among them, by their scope.
    name = loss.name if '.' in loss.name or scope_of(config) == 'mmdet' else f'mmdet.{loss.name}'
    for site in sites.of_model(config.model, only):
        site.loss.update({'type': name, **loss.arguments})
    imports = (config.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    if not any(name.startswith('focal_plugin') for name in imports):
        config.custom_imports = dict(imports=[*imports, 'focal_plugin'], allow_failed_imports=False)
    return config


def scope_of(config: Config) -> str:
    """Where a config looks up types without a scope."""
    return config.get('default_scope') or 'mmdet'


def written(node: Any) -> Any:
    """A config that can be written down: with the full name of a class in place of the class, which a registry finds too."""
    if isinstance(node, (dict, Config)):
        return {key: written(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(map(written, node))
    return f'{node.__module__}.{node.__qualname__}' if isinstance(node, (type, FunctionType)) else node


def message(error: Exception) -> str:
    """Type and first lines of an error, without mmengine's prefix for builders."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:400]}'
