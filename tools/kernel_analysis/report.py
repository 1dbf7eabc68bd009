"""Compiles the Triton kernels for GPUs that need not be there and reads their cost off the machine code.

    python -m tools.kernel_analysis.report --arch sm_80 sm_90 gfx942

One row per kernel, dtype and architecture: the forward (a sum, with a weight per row) and the backward of every variant,
of masks in the channels of their classes, and of a head's maps of four sizes, for the targets that heads hand them most,
compiled with the arguments that the package itself launches them with. Everything here is predicted: nothing is run. Slots
are what a thread executes (loops counted by their trips), divided by its logits, with 1 row in 500 positive: a tile with a
positive takes a longer way than one without. FP32, integer and MUFU (special-function) instructions issue at rates of their
own; memory, copies and control only take slots.
Then, for each card of an architecture, what bounds the kernel, its share of the speed at which its memory could move what
the kernel reads and writes (logits, gradients, dense targets of the logits' dtype, labels, scores and weights), and the
time of (200000, 80) and of RetinaNet's 22400 x 9 anchors an image of 800 x 1344, batch 16. gpus.py has the cards.
mmcv's kernel is read in the same way where nvcc is installed: its slots are those of the shortest way, on which pow() and
the divisions meet no special case; `listing` counts the slow ways too.
Rows that a CSV has of the same kernel, dtype, architecture and number of classes are replaced; several runs may write to
one CSV at the same time.
The last line is `spills: N`, bytes over all kernels; the exit status is 1 if N > 0.
"""

import argparse
import fcntl
import itertools
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch

from focal_plugin.math import SPECS
from tools.benchmarks.results import table, update
from tools.kernel_analysis import mmcv_code
from tools.kernel_analysis.counts import GRADIENTS, LABELS, LOGITS, UNITS, count
from tools.kernel_analysis.disassembly import machine_code
from tools.kernel_analysis.gpus import ARCHS, GPUS
from tools.kernel_analysis.launches import DTYPES, MAPS, MASKS, PIXELS, ROWS, compiled, form_of

POSITIVE = 1 / 500  # rows with a positive
RETINANET = 16 * 9 * (100 * 168 + 50 * 84 + 25 * 42 + 13 * 21 + 7 * 11)  # rows of a batch
KEY = ('kernel', 'classes', 'dtype', 'arch', 'card')


def moved_bytes(form: str, kind: str, logit: int, classes: int) -> float:
    """Bytes per logit that a kernel has to move; partial sums, a few per program, are left out."""
    logits = 1 + (form == 'dense') + (kind == 'bwd')
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


def report(classes: int, name: str, dtype: str, arch: str) -> list[dict[str, Any]]:
    """The rows of the kernels of a variant, of MASKS or of some of MAPS."""
    bits = torch.finfo(DTYPES[dtype]).bits
    along = PIXELS if name == MASKS else classes
    rows = []
    forward, _, backward = compiled(name, DTYPES[dtype], classes, arch)
    for kernel, kind in ((forward, 'fwd'), (backward, 'bwd')):
        if isinstance(kernel, Exception):
            raise kernel
        if not {LOGITS, GRADIENTS, LABELS} <= set(kernel.src.fn.arg_names):
            raise ValueError(f'{name}: its kernels do not call their operands as counts.py does')
        code = machine_code(kernel)
        constants = code.constants
        if not constants.get('HELD', True):
            sys.exit(f'{name}, --classes {classes}: it reads rows so long several times, which is not counted')
        is_flat = 'GROUPS' in constants
        rows_of_tile, width = (constants[n] for n in (('GROUPS', 'WIDTH') if is_flat else ('BLOCK_R', 'BLOCK_C')))
        tile, used = rows_of_tile * width, 1 if is_flat else along / width
        plane = math.prod(MAPS.get(name, ()))
        filled = plane / (-(-plane // rows_of_tile) * rows_of_tile) if name in MAPS else 1  # of a plane's programs
        counted = count(
            code.listing,
            code.origins,
            bits,
            slots=tile * -int(-used // 1) // code.threads,
            logits=tile * used * filled / code.threads,
            stores=kind == 'bwd',
            positive_tiles=1 - (1 - POSITIVE) ** (tile / classes + 1 if is_flat else rows_of_tile),
        )
        head = {'kernel': f'{name}_{kind}', 'classes': classes, 'dtype': dtype, 'arch': arch, **code.resources}
        rows += on_cards(head, counted, moved_bytes(form_of(name), kind, bits // 8, along))
    return rows


def of_sum(arch: str) -> dict[str, Any]:
    """The row of the kernel that adds up the forwards' partial sums, a few per program: nothing of it is a logit's."""
    _, kernel, _ = compiled('focal', torch.float32, 80, arch)
    resources = machine_code(kernel).resources
    return {'kernel': 'sum', 'classes': '', 'dtype': 'fp32', 'arch': arch, **resources, 'card': ''}


def of_mmcv(arch: str, dtypes: list[str], classes: int) -> list[dict[str, Any]]:
    """The rows of mmcv's kernels, which read and write a logit in either direction."""
    rows = []
    for head, counted in mmcv_code.kernels(arch):
        if head['dtype'] in dtypes:
            moved = 2 * torch.finfo(DTYPES[head['dtype']]).bits // 8 + 8 / classes
            rows += on_cards(head | {'classes': classes}, counted, moved)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--arch', nargs='+', choices=ARCHS, default=['sm_80', 'sm_90', 'gfx942'], metavar='ARCH')
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
    works = itertools.product(args.classes, args.spec, args.dtype, args.arch)
    rows = [row for work in works for row in report(*work)]
    rows += [of_sum(arch) for arch in args.arch]
    rows = [row | {'compiler': f'Triton {triton.__version__}'} for row in rows]
    spills = sum(row['spills (bytes)'] for row in rows)
    missing = mmcv_code.why_not()
    if missing is None:
        nvidia = [arch for arch in args.arch if arch.startswith('sm_')]
        rows += [row for arch in nvidia for row in of_mmcv(arch, args.dtype, args.classes[0])]
    title = f'Triton {triton.__version__}. Predicted from the machine code: nothing was run.'
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
