"""Writes the stubs of the public API: what the package makes from its specs at run time, spelled out for editors and mypy.

python -m tools.maintain.stubs writes them; --check names those that differ from what it would write, and fails.
"""

import argparse
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from abc import ABCMeta
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from focal_plugin import functional
from focal_plugin.losses import FusedLoss
from focal_plugin.math import SPECS, Spec
from focal_plugin.math.spec import Parameter

ROOT = Path(__file__).parents[2]
MODULES = ('detectors', 'functional', 'heads', 'losses', 'match_costs')

# ruff sorts these, and takes out what a stub does not use.
IMPORTS = """from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from torch import Tensor
from focal_plugin.kernels.problem import Problem
from focal_plugin.math import Spec"""
TYPES = {
    'pred': 'Tensor',
    'target': 'Tensor',
    'weight': 'Tensor | None',
    'use_sigmoid': 'bool',
    'reduction': 'str',
    'loss_weight': 'float',
    'avg_factor': 'float | Tensor | None',
    'ignore_index': 'int | None',
    'class_weight': 'Sequence[float] | Tensor | None',
    'activated': 'bool',
    'from_logits': 'bool',
    'statistics': 'Tensor | None',
}
"""The types of the arguments that are no spec's own."""


class Text(str):
    """An annotation that inspect prints as it is, without quotes."""

    __repr__ = str.__str__


def type_of(parameter: Parameter, vector: str = 'Sequence[float] | Tensor') -> str:
    """The type of a spec's argument, with what stands for one number per class."""
    if parameter.choices or isinstance(parameter.default, bool):
        return 'str' if parameter.choices else 'bool'
    kinds = [] if parameter.sequence else ['int' if parameter.whole else 'float']
    kinds += [vector] * (parameter.sequence or parameter.vector) + ['None'] * parameter.optional
    return ' | '.join(kinds)


def types_of(spec: Spec, parameters: tuple[Parameter, ...]) -> dict[str, str]:
    """The types of the arguments of what is made from a spec."""
    target = {'target': 'Tensor | tuple[Tensor, Tensor]'} if spec.scored else {}
    return TYPES | target | {p.name: type_of(p) for p in parameters}


def annotation(value: Any) -> Any:
    """An annotation of the sources, without the modules of its names, which the stub imports."""
    if value in (inspect.Parameter.empty, None):
        return value
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return Text(re.sub(r'\b(?:\w+\.)+(?=\w)', '', text))


def function(name: str, of: Callable, types: Mapping[str, str] | None = None) -> str:
    """A function or a method, or the constructor of a class, with these types of its arguments or those of its source."""
    signature = inspect.signature(of)
    parameters = [
        p.replace(annotation=annotation(types[p.name] if types else p.annotation))
        for p in signature.parameters.values()
    ]
    returns = Text('Tensor') if types else annotation(signature.return_annotation)
    if isinstance(of, type):
        parameters.insert(0, inspect.Parameter('self', inspect.Parameter.POSITIONAL_OR_KEYWORD))
        returns = Text('None')
    # As mmdet's losses do, some take their targets in another form than the others.
    remark = '  # type: ignore[override]\n' if name == 'forward' else ''
    head = str(signature.replace(parameters=parameters, return_annotation=returns)).removeprefix('(')
    return f'def {name}({remark}{head}:\n' + textwrap.indent(body(None if isinstance(of, type) else of.__doc__), '    ')


def body(doc: str | None, *members: str) -> str:
    lines = [f'"""{inspect.cleandoc(doc)}\n"""' if '\n' in doc else f'"""{doc}"""'] if doc else []
    return '\n'.join([*lines, *members]) or '...'


def class_(kind: type) -> str:
    """A class: its bases, its attributes, its constructor where it has one of its own, and its methods."""
    spec, members = vars(kind).get('spec'), []
    if spec is not None:
        parameters = tuple(
            p for p in (*kind.extra_parameters, *spec.parameters) if p.name in inspect.signature(kind).parameters
        )
        members += [f'{p.name}: {type_of(p, "tuple[float, ...]" if p.sequence else "Tensor")}' for p in parameters]
    for name, value in vars(kind).items():
        if isinstance(value, FunctionType) and not name.startswith('_'):
            # One that wraps the base's is in the base's stub.
            members += [] if hasattr(value, '__wrapped__') else [function(name, value)]
        elif not name.startswith('_') and name not in {*vars(FusedLoss), *FusedLoss.__annotations__}:
            members.append(f'{name}: {type(value).__name__}')
    if spec is not None:
        members.append(function('__init__', kind, types_of(spec, parameters)))
    elif '__init__' in vars(kind):
        members.append(function('__init__', kind.__init__))
    bases = [base.__name__ for base in kind.__bases__] + ['metaclass=ABCMeta'] * isinstance(kind, ABCMeta)
    return f'class {kind.__name__}({", ".join(bases)}):\n' + textwrap.indent(body(kind.__doc__, *members), '    ')


def stub(module: ModuleType) -> str:
    """The text of a module's stub."""
    imports = [IMPORTS]
    members = [f'{name}: {annotation(kind)}' for name, kind in module.__annotations__.items()]
    exported = getattr(module, '__all__', ())
    specs = {functional.FUNCTIONS[name]: spec for name, spec in SPECS.items()}
    for name, value in vars(module).items():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not name.startswith('_'):
            spec = specs.get(value)
            members.append(function(name, value, spec and types_of(spec, spec.parameters)))
        elif name in exported and isinstance(value, type):
            if issubclass(value, FusedLoss) and 'spec' not in vars(value):  # a base, whose source says it all
                imports.append(f'from {value.__module__} import {name}')
            else:
                bases = [base for base in value.__bases__ if base.__name__ not in exported]
                imports += [f'from {base.__module__} import {base.__name__}' for base in bases]
                members.append(class_(value))
    head = f'"""{module.__doc__}\n\nWritten by python -m tools.maintain.stubs.\n"""'
    names = [f'__all__ = {sorted(exported)}'] * bool(exported)
    return formatted('\n'.join([head, *dict.fromkeys(imports), *names, *members]))


def formatted(text: str) -> str:
    """A stub as the linter and the formatter want it."""
    ruff = [sys.executable, '-m', 'ruff']
    for command in (['check', '--quiet', '--fix-only', '--select=F401,I,RUF022'], ['format', '--quiet']):
        run = subprocess.run(
            [*ruff, *command, '--stdin-filename=stub.pyi', '-'],
            input=text, capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        text = run.stdout
    return text


def stubs() -> dict[Path, str]:
    """The text of every stub, by its path."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(f'focal_plugin.{name}')
        found[Path(inspect.getfile(module)).with_suffix('.pyi')] = stub(module)
    return found


def stale(texts: Mapping[Path, str]) -> list[str]:
    """The stubs that are not as they would be written."""
    return [
        str(path.relative_to(ROOT)) for path, text in texts.items() if not path.exists() or path.read_text() != text
    ]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; fail where a stub differs')
    check, texts = parser.parse_args().check, stubs()
    if check and (differing := stale(texts)):
        sys.exit(f'python -m tools.maintain.stubs would change {", ".join(differing)}')
    if not check:
        for path, text in texts.items():
            path.write_text(text)
