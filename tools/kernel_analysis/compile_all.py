"""Run by triton_versions.py inside one of its environments: compiles every kernel of every variant for a GPU.

    python -m tools.kernel_analysis.compile_all sm_90

A line of JSON for each: what it was, and the error, or null.
"""

import itertools
import json
import sys
from collections.abc import Iterator

from focal_plugin.math import SPECS
from tools.kernel_analysis.launches import DTYPES, MASKS, compiled
from tools.kernel_analysis.report import ARCHS

CLASSES = (80, 3, 365)  # walked in tiles, a thread per row, in order


def attempts(arch: str) -> Iterator[tuple[str, Exception | None]]:
    from triton.backends.compiler import GPUTarget

    for spec, dtype, classes in itertools.product([*SPECS, MASKS], ('fp32', 'bf16'), CLASSES):
        try:
            found = compiled(spec, DTYPES[dtype], classes, GPUTarget(*ARCHS[arch]))
        except Exception as error:
            found = [error]
        for kernel in found:
            yield f'{spec}, {dtype}, C = {classes}', kernel if isinstance(kernel, Exception) else None


if __name__ == '__main__':
    for what, error in attempts(sys.argv[1]):
        while error is not None and error.__cause__ is not None:
            error = error.__cause__
        print(json.dumps({'what': what, 'error': error and f'{type(error).__name__}: {error}'}), flush=True)
