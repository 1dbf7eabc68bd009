"""Numbers, flags and vectors that callers pass, turned into Python's own or refused with the value and the remedy."""

from __future__ import annotations
import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from focal_plugin.math.spec import REQUIRED, Parameter
from focal_plugin.tensors import canonical_tensor
from focal_plugin.tracing import may_look

_SYMBOLIC = (torch.SymInt, torch.SymFloat)


def number(name: str, value, kind: str = 'a number') -> float | int:
    """A number of any kind, NumPy's too, as Python's int or float."""
    if type(value) is float or isinstance(value, _SYMBOLIC):
        return value  # type: ignore[return-value]  # a compiler's symbol stands for a number
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f'{name} must be {kind}, got {value!r}')
    if isinstance(value, Integral):
        value = int(value)
        if value.bit_length() > 1023:
            raise ValueError(f'{name} must be {kind} that a float can hold, got one of {value.bit_length()} bits')
        return value
    return float(value)


def mebibytes(name: str, value) -> float:
    """A size in MiB."""
    value = number(name, value, 'a number of MiB')
    if not 0 < value < math.inf:
        raise ValueError(
            f'{name} must be a positive, finite number of MiB, got {value!r}: leave it out for the default'
        )
    return value


def flag(name: str, value) -> bool:
    """True or False: a bool, NumPy's too, 0 or 1."""
    if type(value) is bool:
        return value
    if isinstance(value, (bool, Integral)) or type(value).__name__ in ('bool_', 'bool'):
        if value in (0, 1):
            return bool(value)
    raise ValueError(f'{name} must be True or False, got {value!r}')


def check_number(parameter: Parameter, value) -> float | int:
    """A variant's number, in its range."""
    name = parameter.name
    if type(value) is not float or parameter.whole:
        if parameter.whole and not isinstance(value, Integral):
            raise TypeError(f'{name} must be a whole number, got {value!r}')
        vector = ', or a sequence or tensor of one per class' if parameter.vector else ''
        value = number(name, value, f'a {"whole " * parameter.whole}number{vector}')
    inside = parameter.low < value if parameter.above else parameter.low <= value
    if not (inside and value <= parameter.high) or abs(value) == math.inf:
        raise ValueError(f'{name} must be {parameter.range}, got {value!r}')
    return value if parameter.whole else float(value)


def check_parameter(parameter: Parameter, value, classes: int | None = None):
    """The checked value of a variant's argument: a number, a flag, a string, numbers of classes, or None.

    Numbers of classes are a tuple, or a tensor: float64 if they came as a sequence. The values of a tensor on a GPU are not
    looked at: that would synchronise.
    """
    name = parameter.name
    if value is REQUIRED:
        raise TypeError(f'{name} must be given: {parameter.doc[0].lower()}{parameter.doc[1:]}')
    if parameter.optional and (value is None or (isinstance(value, Real) and value < 0 and value != -math.inf)):
        return None
    if type(value) is float and parameter.is_number:
        return check_number(parameter, value)  # nearly always
    if isinstance(parameter.default, bool):
        return flag(name, value)
    if parameter.choices:
        if not isinstance(value, str) or value not in parameter.choices:
            raise ValueError(f'{name} must be {parameter.range}, got {value!r}')
        return value
    is_sequence = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    if parameter.sequence:
        if not is_sequence and not isinstance(value, Tensor):
            raise TypeError(f'{name} must be a sequence of one number per class, got {value!r}')
        return tuple(check_number(parameter, v) for v in (value.tolist() if isinstance(value, Tensor) else value))
    if parameter.vector and is_sequence:
        numbers = [check_number(parameter, v) for v in value]
        vector = torch.tensor(numbers, dtype=torch.float64, device='cpu')
    elif parameter.vector and isinstance(value, Tensor):
        vector = _checked_vector(parameter, value)
    else:
        return check_number(parameter, value)
    if vector.dim() > 1 or (classes is not None and vector.dim() == 1 and vector.numel() != classes):
        raise ValueError(
            f'{name} must be a number or hold one number for each of the {classes} classes, got the shape '
            f'{tuple(vector.shape)}'
        )
    return vector


def _checked_vector(parameter: Parameter, value: Tensor) -> Tensor:
    value = canonical_tensor(parameter.name, value)
    if value.is_meta:
        raise ValueError(
            f'{parameter.name} is on meta, where it has no values: write numbers, or a tensor that has them'
        )
    if value.dtype == torch.bool:
        raise TypeError(f'{parameter.name} must hold numbers, got {value.dtype}')
    if may_look(value):
        for v in value.detach().flatten().tolist():
            check_number(parameter, v)
    return value


def unknown(owner: str, name: str, known: Iterable[str], remedy: str = '') -> str:
    """The message for an argument that an owner does not know.

    Args:
        owner: a function or class.
        known: the owner's own arguments, from which a misspelt one is guessed.
        remedy: what to write instead, if that is known better.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    guess = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(known)}'
    return f'{owner} has no argument {name!r}: {remedy or guess}'
