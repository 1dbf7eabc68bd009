"""What stands for a tensor that has not been made, and refuses whatever its class does not define.

What nobody thought of could only be answered by making the tensor, which its maker promises not to do.
"""

from __future__ import annotations
from collections.abc import Callable
from typing import NoReturn

from torch import Tensor


def refuse(kind: type[Deferred], operation: str, error: type[Exception] = TypeError) -> NoReturn:
    """Raises the error of an operation that is not known of a kind."""
    raise error(f'{operation} is not known of {kind.description} ({kind.__name__}): {kind.remedy}')


class Deferred:
    """What stands for a tensor that has not been made.

    Attributes:
        description: what it stands for, in an error.
        remedy: what to do where more is asked of it.
    """

    description = 'the class logits that a head keeps where they lie'
    remedy = (
        "mmdet's heads do not use it, and it would copy them. Go back to the stock head (RetinaHead for "
        'FusedRetinaHead), or leave it out'
    )

    def __getattr__(self, name: str) -> NoReturn:
        refuse(type(self), name, AttributeError)

    @classmethod
    def __torch_function__(cls, function: Callable, types, args=(), kwargs=None):
        refuse(cls, getattr(function, '__name__', str(function)))


def _refused(name: str) -> Callable:
    def operation(self, *operands) -> NoReturn:
        refuse(type(self), name)

    return operation


# Python looks operators up past __getattr__, and has answers of its own: `rows == 0` would be False, `bool(rows)` True.
_OPERATORS = {name for name in dir(Tensor) if name.startswith('__') and not name.startswith('__torch_')}
_COMPARISONS = {'__lt__', '__le__', '__eq__', '__ne__', '__gt__', '__ge__'}
for _name in _OPERATORS - set(dir(object)) | _COMPARISONS:
    if callable(getattr(Tensor, _name)):
        setattr(Deferred, _name, _refused(_name))
