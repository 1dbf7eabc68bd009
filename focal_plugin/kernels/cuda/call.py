"""What a launch is given: call.h's structures, in ctypes."""

from __future__ import annotations
import ctypes


class Operand(ctypes.Structure):
    _fields_ = (('data', ctypes.c_void_p), ('row', ctypes.c_int * 3), ('step', ctypes.c_int))


OPERANDS = ('x', 'target', 'score', 'weight', 'upstream', 'out')


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
