"""What Triton's JIT is about to compile, taken from it and compiled for a GPU that is not there.

Its versions differ in where the hook is and in what they call a constant; each is asked for what it has.
"""

import contextlib
import functools
import inspect
import json
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def instead_of_compiling() -> Iterator[list[dict]]:
    """The launches of kernels in this block, which are neither compiled nor run."""
    import triton

    seen: list[dict] = []

    def hook(**launch) -> bool:
        seen.append(launch)
        return True

    holder, name = (
        (triton.knobs.runtime, 'jit_cache_hook') if hasattr(triton, 'knobs') else (triton.JITFunction, 'cache_hook')
    )
    before = getattr(holder, name)
    setattr(holder, name, hook)
    try:
        # Some describe a launch to the hook in JSON, which has no jit functions.
        with mock.patch('json.dumps', functools.partial(json.dumps, default=repr)):
            yield seen
    finally:
        setattr(holder, name, before)


def compiled(launch: dict, target: Any):
    """The compiled kernel of a launch."""
    import triton
    from triton.compiler import ASTSource

    request = launch['compile']
    is_new = 'constexprs' in inspect.signature(ASTSource).parameters
    source = ASTSource(
        launch['fn'].jit_function,
        request['signature'],
        **{'constexprs' if is_new else 'constants': request['constants']},
        attrs=request['configs'][0],
    )
    options = json.loads(request['specialization_data'])['options']
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return triton.compile(source, target=target, options=options)


def parameters(launch: dict) -> dict[str, str]:
    """The types of the parameters of a launch's kernel that are none of its constants, by name, in their order."""
    return {name: of for name, of in launch['compile']['signature'].items() if of != 'constexpr'}


def constants(launch: dict) -> dict[str, Any]:
    """What the kernel of a launch is compiled for, by name."""
    names = launch['fn'].jit_function.arg_names
    return {names[path[0]]: value for path, value in launch['compile']['constants'].items()}
