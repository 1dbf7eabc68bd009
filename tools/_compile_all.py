"""Run by triton_versions.py inside one of its environments: compiles every kernel of every variant for a GPU.

    python tools/_compile_all.py sm_90

A line of JSON for each: what it was, and the error, or null.
"""

import json
import sys

import _jit
from _launches import DTYPES, MASKS, launches
from kernel_report import ARCHS

from focal_plugin.math import SPECS

CLASSES = (80, 3, 365)  # walked in tiles, a thread to a row, in order


def tell(what: str, error: BaseException | None) -> None:
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    print(json.dumps({'what': what, 'error': error and f'{type(error).__name__}: {error}'}), flush=True)


def main() -> None:
    from triton.backends.compiler import GPUTarget

    target = GPUTarget(*ARCHS[sys.argv[1]])
    for spec in [*SPECS, MASKS]:
        for dtype in ('fp32', 'bf16'):
            for classes in CLASSES:
                what = f'{spec}, {dtype}, C = {classes}'
                try:
                    found = launches(spec, DTYPES[dtype], classes, target)
                except Exception as error:
                    tell(what, error)
                    continue
                for launch in found:
                    try:
                        _jit.compiled(launch, target)
                    except Exception as error:
                        tell(what, error)
                    else:
                        tell(what, None)


if __name__ == '__main__':
    main()
