"""The native backend's row-wise family: the same calls, which reach another entry point of the library."""

from focal_plugin.kernels.native.elementwise import GATHERS, IN_PLACE, backward, forward, forward_and_backward, prepared

__all__ = ['GATHERS', 'IN_PLACE', 'backward', 'forward', 'forward_and_backward', 'prepared']
