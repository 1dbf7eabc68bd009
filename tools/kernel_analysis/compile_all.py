"""Run by triton_versions.py inside one of its environments: compiles every kernel of every variant for a GPU.

    python -m tools.kernel_analysis.compile_all sm_90

A line of JSON for each: what it was, and the error, or null.
"""

import json
import sys

from focal_plugin.math import SPECS
from tools.kernel_analysis import jit
from tools.kernel_analysis.launches import DTYPES, MASKS, launches
from tools.kernel_analysis.report import ARCHS

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
                        jit.compiled(launch, target)
                    except Exception as error:
                        tell(what, error)
                    else:
                        tell(what, None)


if __name__ == '__main__':
    main()
