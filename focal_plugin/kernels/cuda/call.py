"""What a launch is given: call.h's structures, in ctypes, and packed in one step from what changes between launches."""

from __future__ import annotations
import ctypes
import struct
from collections.abc import Sequence


class Operand(ctypes.Structure):
    _fields_ = (('data', ctypes.c_void_p), ('row', ctypes.c_int * 3), ('step', ctypes.c_int))


OPERANDS = ('x', 'target', 'score', 'weight', 'upstream', 'out')
TENSORS = (*OPERANDS, 'channel', 'per_class', 'avg', 'partial')


class Call(ctypes.Structure):
    _fields_ = (
        *((name, Operand) for name in OPERANDS),
        ('channel', ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ('channels', 'x_channel', 'out_channel')),
        *((name, ctypes.c_void_p) for name in ('per_class', 'avg', 'partial')),
        *((name, ctypes.c_int) for name in ('rows', 'n1', 'n2', 'classes', 'span')),
        ('ignore_index', ctypes.c_int64),
        ('scale', ctypes.c_float),
        ('parameter', ctypes.c_float * 6),
    )


# By offset: what differs from launch to launch, and where the bytes behind it begin and end, which do not.
_CHANGING = {**{getattr(Call, name).offset: 'Q' for name in TENSORS}, Call.scale.offset: 'f'}
_STAYING = [
    (at + struct.calcsize(kind), end)
    for (at, kind), end in zip(_CHANGING.items(), [*list(_CHANGING)[1:], ctypes.sizeof(Call)])
]
_pack = struct.Struct('=' + ''.join(f'{kind}{end - at}s' for kind, (at, end) in zip(_CHANGING.values(), _STAYING))).pack


class Packed:
    """A call but for the addresses and the scale."""

    def __init__(self, call: Call):
        given = bytes(call)
        self._values: list = [value for at, end in _STAYING for value in (0, given[at:end])]

    def __call__(self, addresses: Sequence[int], scale: float) -> bytes:
        """The bytes of the structure, addresses in the order of TENSORS."""
        values = self._values.copy()
        values[::2] = (*addresses, scale)
        return _pack(*values)
