"""The native backend's row-wise family: the same calls, which reach another entry point of the library."""

from focal_plugin.kernels.native.elementwise import backward, forward

__all__ = ['backward', 'forward']
