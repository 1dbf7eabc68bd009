"""What the kernels need of Triton that not every version has, and what stands in for it where it is missing.

Each is looked for by itself, never by Triton's version.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def _jitted():
    pass


# Whether kernels are interpreted, which is settled when they are decorated.
INTERPRETED = tl.constexpr(not isinstance(_jitted, triton.JITFunction))

# Whether a variable of a kernel can hold a tuple: the rows of a softmax then stay in registers, else they are read again.
HAS_TUPLES = hasattr(tl, 'tuple')

# Whether a compile-time argument of a launch may be a function: the same change to arguments brought both.
TAKES_FUNCTIONS = HAS_TUPLES

# Whether a compiled kernel can be launched again with all of its arguments, the compile-time ones too; seen on NVIDIA.
RELAUNCHES = hasattr(triton, 'knobs') and torch.version.cuda is not None and not INTERPRETED.value

try:
    from triton.language.target_info import is_cuda
except ImportError:

    @tl.core.builtin
    def is_cuda(_builder=None, _semantic=None):
        """Whether a kernel is compiled for NVIDIA."""
        builder = _semantic.builder if _builder is None else _builder
        return tl.constexpr(builder.options.backend_name == 'cuda')

    is_cuda.__module__ = tl.__name__  # where Triton looks whether a function is one of its own


class _Uncallable:
    """Stands for a jit function in launches that refuse compile-time arguments which can be called."""

    __class__ = triton.JITFunction  # what the compiler looks at before it calls one

    def __init__(self, function):
        self._function = function

    def __getattr__(self, name):
        return getattr(self._function, name)

    def __repr__(self):
        """Part of the key of a compiled kernel."""
        return f'{self._function.__name__}_{self._function.cache_key}'


def constant(function):
    """A jit function as a compile-time argument of a kernel."""
    return function if INTERPRETED.value or TAKES_FUNCTIONS else _Uncallable(function)
