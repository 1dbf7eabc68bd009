"""Compiles the GPU backends' kernels for GPUs that need not be there and reads their cost off the machine code.

    python -m tools.kernel_analysis.report --arch sm_80 sm_90 gfx942

One row per kernel, backend, dtype and architecture: the forward (a sum, with a weight per row) and the backward of every
variant, of masks in the channels of their classes, and of a head's maps of four sizes (of these also the kernel of both in
one pass, which a head with cut=True runs), for the targets that heads hand them most, compiled with the arguments that the
package itself launches them with. Everything here is predicted: nothing is run.
Slots are what a thread executes (loops counted by their trips), divided by its logits, with 1 row in 500 positive: a tile
with a positive takes a longer way than one without, and of the cuda backend a warp with one. FP32, integer and MUFU
(special-function) instructions issue at rates of their own; memory, copies and control only take slots. For sm_60 and sm_70
there are rows of the cuda backend alone, with registers and spills: no disassembler of Triton's reads these.
Then, for each card of an architecture, what bounds the kernel, its share of the speed at which its memory could move what
the kernel reads and writes (logits, gradients, dense targets of the logits' dtype, labels, scores and weights), and the
time of (200000, 80) and of RetinaNet's 22400 x 9 anchors an image of 800 x 1344, batch 16. gpus.py has the cards.
mmcv's kernel is read in the same way where nvcc is installed: its slots are those of the shortest way, on which pow() and
the divisions meet no special case; `listing` counts the slow ways too.
Rows that a CSV has of the same kernel, backend, dtype, architecture and number of classes are replaced; several runs may
write to one CSV at the same time.
The last line is `spills: N`, bytes over all kernels but for those of which a thread keeps so few in memory (FEW_BYTES of
the cuda backend's driver) that more threads at once are worth it; the exit status is 1 if N > 0.
"""

import argparse
import fcntl
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import torch

from focal_plugin.kernels.cuda import compiler, driver
from focal_plugin.math import SPECS
from tools.benchmarks.results import table, update
from tools.kernel_analysis import launches, mmcv_code, nvrtc
from tools.kernel_analysis.counts import UNITS, count
from tools.kernel_analysis.cubin import resources
from tools.kernel_analysis.disassembly import machine_code
from tools.kernel_analysis.gpus import ARCHS, GPUS, NVIDIA, OLDER
from tools.kernel_analysis.launches import DTYPES, MAPS, MASKS, PIXELS, ROWS, form_of
from tools.kernel_analysis.shares import share

RETINANET = 16 * 9 * (100 * 168 + 50 * 84 + 25 * 42 + 13 * 21 + 7 * 11)  # rows of a batch
KEY = ('kernel', 'backend', 'classes', 'dtype', 'arch', 'card')
BACKENDS = {'triton': launches.compiled, 'cuda': nvrtc.compiled}
KINDS = ('fwd', 'sum', 'bwd', 'both', 'sum')  # as they are launched
FEW_BYTES = {'triton': 0, 'cuda': driver.FEW_BYTES}
SERVED = {'triton': tuple(ARCHS), 'cuda': (*OLDER, *NVIDIA)}


def moved_bytes(form: str, kind: str, logit: int, classes: int) -> float:
    """Bytes per logit that a kernel has to move; partial sums, a few per program, are left out."""
    logits = 1 + (form == 'dense') + (kind != 'fwd')
    row = 4 + 8 * (form != 'dense') + 4 * (form == 'scored')  # weight, label, score
    return logits * logit + row / classes


def on_cards(head: dict[str, Any], counted: dict[str, float], moved: float) -> list[dict[str, Any]]:
    """The rows of a kernel: one for each card of its architecture, or one without a card."""
    widths = {name: value for name, value in counted.items() if '/logit' not in name}
    head = head | widths | {f'predicted {name}': f'{counted[name]:.2f}' for name in counted if name not in widths}
    rows = []
    for gpu in GPUS:
        if gpu.arch == head['arch']:
            bounds = gpu.seconds(moved, counted['slots/logit'], *(counted[f'{unit}/logit'] for unit in UNITS))
            bound = max(bounds, key=bounds.get)
            card = {
                'card': gpu.name,
                'predicted bound': bound,
                'predicted share of the memory roofline': f'{bounds["memory"] / bounds[bound]:.2f}',
                'predicted ms, 200000 rows': f'{1e3 * ROWS * head["classes"] * bounds[bound]:.3g}',
                'predicted ms, RetinaNet batch 16': f'{1e3 * RETINANET * head["classes"] * bounds[bound]:.3g}',
            }
            rows.append(head | card)
    return rows or [head | {'card': ''}]


def report(classes: int, name: str, dtype: str, arch: str, backend: str) -> list[dict[str, Any]]:
    """The rows of a backend's kernels of a variant, of MASKS or of some of MAPS.

    Raises:
        ValueError: what a kernel executes can't be counted.
    """
    bits = torch.finfo(DTYPES[dtype]).bits
    along = PIXELS if name == MASKS else classes
    rows = []
    kernels = BACKENDS[backend](name, DTYPES[dtype], classes, arch)
    for kernel, kind in zip(kernels, KINDS, strict=False):
        if kind == 'sum':  # see of_sum
            continue
        if isinstance(kernel, Exception):
            raise kernel
        head = {'kernel': f'{name}_{kind}', 'backend': backend, 'classes': classes, 'dtype': dtype, 'arch': arch}
        if arch in OLDER:
            rows.append(head | resources(kernel.code) | {'card': ''})
            continue
        code = machine_code(kernel)
        found = share(name, kernel, code, classes)
        counted = count(
            code.listing,
            code.origins,
            bits,
            slots=found.slots,
            logits=found.logits,
            stores=kind != 'fwd',
            positives=found.positives,
        )
        rows += on_cards(head | code.resources, counted, moved_bytes(form_of(name), kind, bits // 8, along))
    return rows


def of_sum(arch: str, backend: str) -> dict[str, Any]:
    """The row of the kernel that adds up the forwards' partial sums, a few per program: nothing of it is a logit's."""
    _, kernel, _ = BACKENDS[backend]('focal', torch.float32, 80, arch)
    used = resources(kernel.code) if arch in OLDER else machine_code(kernel).resources
    head = {'kernel': 'sum', 'backend': backend, 'classes': '', 'dtype': 'fp32', 'arch': arch}
    return head | used | {'card': ''}


def of_mmcv(arch: str, dtypes: list[str], classes: int) -> list[dict[str, Any]]:
    """The rows of mmcv's kernels, which read and write a logit in either direction."""
    rows = []
    for head, counted in mmcv_code.kernels(arch):
        if head['dtype'] in dtypes:
            moved = 2 * torch.finfo(DTYPES[head['dtype']]).bits // 8 + 8 / classes
            rows += on_cards(head | {'backend': '', 'classes': classes}, counted, moved)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    archs = (*OLDER, *ARCHS)
    parser.add_argument('--arch', nargs='+', choices=archs, default=['sm_80', 'sm_90', 'gfx942'], metavar='ARCH')
    parser.add_argument('--backend', nargs='+', choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument('--dtype', nargs='+', choices=DTYPES, default=list(DTYPES))
    names = [*SPECS, MASKS, *MAPS]
    parser.add_argument(
        '--spec', nargs='+', choices=names, default=names, metavar='NAME', help='variants (default: all)'
    )
    parser.add_argument('--classes', nargs='+', type=int, default=[80], metavar='C')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='also write the rows here')
    args = parser.parse_args()
    if min(args.classes) < 1:
        parser.error(f'--classes {min(args.classes)}: at least 1')
    if os.environ.get('TRITON_INTERPRET') == '1':
        sys.exit('TRITON_INTERPRET=1 interprets kernels instead of compiling them: unset it')
    try:
        import triton
    except ImportError:
        sys.exit('Triton is not installed: pip install triton')
    if 'cuda' in args.backend and compiler.path() is None:
        sys.exit("NVIDIA's run-time compiler is not installed: pip install nvidia-cuda-nvrtc-cu12, or --backend triton")
    served = [(arch, backend) for arch in args.arch for backend in args.backend if arch in SERVED[backend]]
    works = itertools.product(args.classes, args.spec, args.dtype, served)
    try:
        rows = [row for *work, where in works for row in report(*work, *where)]
    except ValueError as error:
        sys.exit(str(error))
    rows += [of_sum(*where) for where in served]
    compilers = {'triton': f'Triton {triton.__version__}'}
    if 'cuda' in args.backend:
        compilers['cuda'] = 'NVRTC ' + '.'.join(map(str, compiler.version()))
    rows = [row | {'compiler': compilers[row['backend']]} for row in rows]
    spills = sum(row['spills (bytes)'] for row in rows if row['spills (bytes)'] > FEW_BYTES[row['backend']])
    missing = mmcv_code.why_not()
    if missing is None:
        nvidia = [arch for arch in args.arch if arch in NVIDIA]
        rows += [row for arch in nvidia for row in of_mmcv(arch, args.dtype, args.classes[0])]
    title = f'{", ".join(compilers.values())}. Predicted from the machine code: nothing was run.'
    print(f'{title}\n{table(rows)}')
    if missing:
        print(f"mmcv's kernels are not among them: {missing}")
    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(args.csv.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        update(args.csv, rows, KEY)
        os.close(folder)
    print(f'spills: {spills}')
    return 1 if spills else 0


if __name__ == '__main__':
    sys.exit(main())
