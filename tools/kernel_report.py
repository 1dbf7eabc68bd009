"""Compiles the Triton kernels for GPUs that need not be there and reads their cost off the machine code.

    python tools/kernel_report.py --arch sm_80 sm_90 gfx942

One row per kernel, dtype and architecture: the forward (a sum, with a weight per row) and the backward of every variant,
and of masks in the channels of their classes, for the targets that heads hand them most, compiled with the arguments that
the package itself launches them with. Everything here is predicted: nothing is run. Slots are what a thread executes
(loops counted by their trips), divided by its logits, with 1 row in 500 positive: a tile with a positive takes a longer way
than one without. FP32, integer and MUFU (special-function) instructions issue at rates of their own; memory, copies and
control only take slots.
Then, for each card of an architecture, what bounds the kernel, its share of the speed at which its memory could move what
the kernel reads and writes (logits, gradients, dense targets of the logits' dtype, labels, scores and weights), and the
time of (200000, 80) and of RetinaNet's 22400 x 9 anchors an image of 800 x 1344, batch 16. _gpus.py has the cards.
mmcv's kernel is read in the same way where nvcc is installed: its slots are those of the shortest way, on which pow() and
the divisions meet no special case; `listing` counts the slow ways too.
Rows that a CSV has of the same kernel, dtype, architecture and number of classes are replaced.
The last line is `spills: N`, bytes over all kernels; the exit status is 1 if N > 0.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import _jit
import _mmcv_code
import torch
from _gpus import GPUS
from _machine_code import Listing, executed, parse
from _results import update
from _variants import typical_arguments

from focal_plugin.functional import packed
from focal_plugin.kernels.problem import Problem
from focal_plugin.math import SPECS

ARCHS = {f'sm_{n}': ('cuda', n, 32) for n in (75, 80, 86, 89, 90, 100, 120)}
ARCHS |= {name: ('hip', name, 64) for name in ('gfx90a', 'gfx942', 'gfx950')}
ARCHS |= {'gfx1100': ('hip', 'gfx1100', 32)}
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
ROWS = 200_000
POSITIVE = 1 / 500  # rows with a positive
RETINANET = 16 * 9 * (100 * 168 + 50 * 84 + 25 * 42 + 13 * 21 + 7 * 11)  # rows of a batch
UNITS = ('FP32', 'integer', 'MUFU')
MASKS, PIXELS = 'mask_focal', 28 * 28  # the focal loss of masks, each in the channel of its class, and their size
KEY = ('kernel', 'classes', 'dtype', 'arch', 'card')


def count(
    listing: Listing, logits_lines: set[int], logit_bits: int, slots: int, logits: float,
    positive_lines: set[int] = frozenset(), positive_tiles: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """What a thread executes a logit, read off a listing: the columns before they are rounded and called predicted.

    Args:
        listing: the kernel.
        logits_lines: source lines whose global accesses are those of logits and gradients.
        logit_bits: width of a logit.
        slots: places of the tile, of one thread; logits: how many of them are logits.
        positive_lines: source lines that a tile with a positive executes; positive_tiles: the share of such tiles.
    """
    moved = [
        (i.is_load * i.bits // logit_bits, i.is_store * i.bits // logit_bits) if i.line in logits_lines else (0, 0)
        for i in listing.instructions
    ]
    total = slots, slots * any(stored for _, stored in moved)
    ways = [executed(listing, moved, total), executed(listing, moved, total, positive_lines)]
    accesses = [i for i in ways[0] if i.line in logits_lines and (i.is_load or i.is_store)]

    def mean(counts: list[int]) -> float:
        return ((1 - positive_tiles) * counts[0] + positive_tiles * counts[1]) / logits

    units = [Counter(i.unit for i in way) for way in ways]
    return {
        'widest access (bits)': max(i.bits for i in accesses),
        'narrowest access (bits)': min(i.bits for i in accesses),
        'slots/logit': mean([len(way) for way in ways]),
        'slots/logit without a positive': len(ways[0]) / logits,
        **{f'{unit}/logit': mean([counted[unit] for counted in units]) for unit in UNITS},
    }


def lines_of(function: Any, pattern: str) -> set[int]:
    """The file's lines of a kernel whose source matches, and three after, which Triton may name instead."""
    rows = ''.join(function.raw_src).splitlines()
    found = [function.starting_line_number + n for n, row in enumerate(rows) if re.search(pattern, row)]
    return {line + n for line in found for n in range(4)}


def logits_lines(function: Any) -> set[int]:
    """The source lines that load tiles of logits and store tiles of results."""
    blocks = [function.fn.__globals__.get(name) for name in ('_others', '_spread')]
    if all(blocks):
        # What a function returns can have the line after its last.
        return {block.starting_line_number + n for block in blocks for n in range(len(block.raw_src) + 2)}
    return lines_of(function, r'(?<!own_)x = tl\.load\(x_ptr|tl\.store\(out_ptr \+ (\(o_row|start)')


def positive_lines(function: Any) -> set[int]:
    """The source lines of what only a tile with a positive executes."""
    tree = ast.parse(''.join(function.raw_src))
    branches = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == 'any_positive'
    ]
    first = function.starting_line_number - 1
    return {first + n for at in branches for n in range(at.body[0].lineno, at.body[-1].end_lineno + 1)}


def form_of(kernel: str) -> str:
    return 'dense' if kernel == MASKS else SPECS[kernel].form


def typical_problem(kernel: str, dtype: torch.dtype, classes: int) -> Problem:
    """A variant's loss, or that of masks, as heads call it, on meta tensors."""
    on_meta = {'device': 'meta'}
    spec = SPECS['focal' if kernel == MASKS else kernel]
    rows = ROWS + 1  # no multiple of 16, which Triton would know
    pred = torch.empty(rows, classes, *[PIXELS] * (kernel == MASKS), dtype=dtype, **on_meta)
    parameters, table = packed(spec, typical_arguments(spec, classes, 'meta'), pred)
    read = pred.select(1, 0) if kernel == MASKS else pred
    return Problem(
        pred=pred,
        target=torch.empty_like(read) if form_of(kernel) == 'dense' else pred.new_empty(rows, dtype=torch.int64),
        score=torch.empty(rows, **on_meta) if form_of(kernel) == 'scored' else None,
        weight=torch.empty(rows, 1, **on_meta).expand(read.shape),
        table=table,
        avg_factor=torch.empty((), **on_meta),
        channel=torch.empty(rows, dtype=torch.int64, **on_meta) if kernel == MASKS else None,
        spec=spec,
        parameters=parameters,
        activated=spec.probabilities == 'from_logits',
        ignore_index=None,
        scale=1.0,
        output='sum',
    )


def launches(kernel: str, dtype: torch.dtype, classes: int, target: Any) -> list[dict]:
    """What Triton's JIT would compile for a forward of the package, its sum and a backward, taken from it before it does."""
    from triton.runtime import driver

    from focal_plugin.kernels.triton import elementwise, layout, rowwise

    class Driver:
        """Stands for the driver of a GPU."""

        def get_current_target(self):
            return target

        def get_current_device(self):
            return target  # the key of the JIT's caches

        def get_current_stream(self, device):
            return 0

    problem = typical_problem(kernel, dtype, classes)
    more = [problem.pred.new_empty(2, classes, dtype=torch.float64)] if problem.spec.statistics else []
    skeleton = rowwise if problem.spec.skeleton == 'rowwise' else elementwise
    driver.set_active(Driver())
    with _jit.instead_of_compiling() as seen, mock.patch.object(layout, 'LANES', target.warp_size):
        skeleton.forward(problem)
        skeleton.backward(problem, torch.empty((), device='meta'), *more)
    return seen


def listing_and_resources(kernel: Any) -> tuple[str, dict[str, int]]:
    """(disassembly, columns) of a compiled kernel; spills are of a thread, its stack included."""

    def resources(registers: int, spills: int) -> dict[str, int]:
        return {'registers': registers, 'shared (bytes)': kernel.metadata.shared, 'spills (bytes)': spills}

    if 'amdgcn' in kernel.asm:
        text = kernel.asm['amdgcn']
        counts = {name: int(value) for name, value in re.findall(r'\.(\w+_count):\s+(\d+)', text)}
        return text, resources(counts['vgpr_count'], 4 * (counts['vgpr_spill_count'] + counts['sgpr_spill_count']))
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, 'kernel.cubin')
        cubin.write_bytes(kernel.asm['cubin'])

        def output(tool: Any, *options: str) -> str:
            return subprocess.run([tool.path, *options, cubin], check=True, capture_output=True, text=True).stdout

        text = output(knobs.nvidia.nvdisasm, '-c', '-g')
        usage = output(knobs.nvidia.cuobjdump, '--dump-resource-usage')
    registers, stack, local = re.search(r'REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)', usage).groups()
    return text, resources(int(registers), int(stack) + int(local))


def moved_bytes(form: str, kind: str, logit: int, classes: int) -> float:
    """Bytes a logit that a kernel can't but move; partial sums, a few a program, are left out."""
    logits = 1 + (form == 'dense') + (kind == 'bwd')
    row = 4 + 8 * (form != 'dense') + 4 * (form == 'scored')  # weight, label, score
    return logits * logit + row / classes


def on_card(gpu: Any, moved: float, counted: dict[str, float], classes: int) -> dict[str, Any]:
    """The columns of a card."""
    bounds = gpu.seconds(moved, counted['slots/logit'], *(counted[f'{unit}/logit'] for unit in UNITS))
    bound = max(bounds, key=bounds.get)
    return {
        'card': gpu.name,
        'predicted bound': bound,
        'predicted share of the memory roofline': f'{bounds["memory"] / bounds[bound]:.2f}',
        'predicted ms, 200000 rows': f'{1e3 * ROWS * classes * bounds[bound]:.3g}',
        'predicted ms, RetinaNet batch 16': f'{1e3 * RETINANET * classes * bounds[bound]:.3g}',
    }


def on_cards(head: dict[str, Any], counted: dict[str, float], moved: float) -> list[dict[str, Any]]:
    """The rows of a kernel: one for each card of its architecture, or one without a card."""
    widths = {name: value for name, value in counted.items() if '/logit' not in name}
    head = head | widths | {f'predicted {name}': f'{counted[name]:.2f}' for name in counted if name not in widths}
    cards = [on_card(gpu, moved, counted, head['classes']) for gpu in GPUS if gpu.arch == head['arch']]
    return [head | card for card in cards or [{'card': ''}]]


def report(name: str, dtype: str, arch: str, classes: int) -> list[dict[str, Any]]:
    """The rows of the kernels of a variant or of MASKS."""
    from triton.backends.compiler import GPUTarget

    target = GPUTarget(*ARCHS[arch])
    bits = torch.finfo(DTYPES[dtype]).bits
    along = PIXELS if name == MASKS else classes
    rows = []
    forward, _, backward = launches(name, DTYPES[dtype], classes, target)
    for launch, kind in ((forward, 'fwd'), (backward, 'bwd')):
        kernel = _jit.compiled(launch, target)
        text, resources = listing_and_resources(kernel)
        function = launch['fn'].jit_function
        constants = {function.arg_names[path[0]]: value for path, value in launch['compile']['constants'].items()}
        is_flat = 'GROUPS' in constants
        rows_of_tile, width = (constants[n] for n in (('GROUPS', 'WIDTH') if is_flat else ('BLOCK_R', 'BLOCK_C')))
        tile, used = rows_of_tile * width, 1 if is_flat else along / width
        threads = kernel.metadata.num_warps * target.warp_size
        counted = count(
            parse(text, Path(function.fn.__code__.co_filename).name),
            logits_lines(function),
            bits,
            slots=tile * -int(-used // 1) // threads,
            logits=tile * used / threads,
            positive_lines=positive_lines(function),
            positive_tiles=1 - (1 - POSITIVE) ** (tile / classes + 1 if is_flat else rows_of_tile),
        )
        head = {'kernel': f'{name}_{kind}', 'classes': classes, 'dtype': dtype, 'arch': arch, **resources}
        rows += on_cards(head, counted, moved_bytes(form_of(name), kind, bits // 8, along))
    return rows


def of_sum(arch: str) -> dict[str, Any]:
    """The row of the kernel that adds up the forwards' partial sums, a few a program: nothing of it is a logit's."""
    from triton.backends.compiler import GPUTarget

    target = GPUTarget(*ARCHS[arch])
    _, launch, _ = launches('focal', torch.float32, 80, target)
    _, resources = listing_and_resources(_jit.compiled(launch, target))
    return {'kernel': 'sum', 'classes': '', 'dtype': 'fp32', 'arch': arch, **resources, 'card': ''}


def of_mmcv(arch: str, dtypes: list[str], classes: int) -> list[dict[str, Any]]:
    """The rows of mmcv's kernels, which read and write a logit in either direction."""
    from triton import knobs

    rows = []
    for head, counted in _mmcv_code.kernels(arch, knobs.nvidia.nvdisasm.path):
        if head['dtype'] in dtypes:
            moved = 2 * torch.finfo(DTYPES[head['dtype']]).bits // 8 + 8 / classes
            rows += on_cards(head | {'classes': classes}, counted, moved)
    return rows


def columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    names = columns(rows)
    lines = [names, ['---'] * len(names), *([str(row.get(name, '')) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join('| ' + ' | '.join(map(str.ljust, line, widths)) + ' |' for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--arch', nargs='+', choices=ARCHS, default=['sm_80', 'sm_90', 'gfx942'], metavar='ARCH')
    parser.add_argument('--dtype', nargs='+', choices=DTYPES, default=list(DTYPES))
    names = [*SPECS, MASKS]
    parser.add_argument(
        '--spec', nargs='+', choices=names, default=names, metavar='NAME', help='variants (default: all)'
    )
    parser.add_argument('--classes', nargs='+', type=int, default=[80], metavar='C')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='also write the rows here')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='also write the table here')
    args = parser.parse_args()
    if min(args.classes) < 1:
        parser.error(f'--classes {min(args.classes)}: at least 1')
    if os.environ.get('TRITON_INTERPRET') == '1':
        sys.exit('TRITON_INTERPRET=1 interprets kernels instead of compiling them: unset it')
    try:
        import triton
    except ImportError:
        sys.exit('Triton is not installed: pip install triton')
    rows = [
        row
        for classes in args.classes
        for spec in args.spec
        for dtype in args.dtype
        for arch in args.arch
        for row in report(spec, dtype, arch, classes)
    ]
    rows += [of_sum(arch) for arch in args.arch]
    rows = [row | {'compiler': f'Triton {triton.__version__}'} for row in rows]
    spills = sum(row['spills (bytes)'] for row in rows)
    missing = _mmcv_code.why_not()
    if missing is None:
        rows += [
            row for arch in args.arch if arch.startswith('sm_') for row in of_mmcv(arch, args.dtype, args.classes[0])
        ]
    title = f'Triton {triton.__version__}. Predicted from the machine code: nothing was run.'
    print(f'{title}\n{table(rows)}')
    if missing:
        print(f"mmcv's kernels are not among them: {missing}")
    if args.csv:
        update(args.csv, rows, KEY)
    if args.markdown:
        args.markdown.write_text(f'{title}\n\n{table(rows)}\n')
    print(f'spills: {spills}')
    return 1 if spills else 0


if __name__ == '__main__':
    sys.exit(main())
