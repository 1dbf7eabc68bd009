"""Compiles the Triton kernels for GPUs that need not be there and reads their cost off the machine code.

    python tools/kernel_report.py --arch sm_80 sm_90 gfx942

One row per kernel, dtype and architecture: the forward (a sum, with a weight per row) and the backward of every variant,
for the targets that heads hand it most, compiled with the arguments that the package itself launches them with.
Everything here is predicted: nothing is run. Issue slots and MUFU (special-function) instructions are those that a thread
executes, loops counted by their trips, divided by the logits of a thread. `of the budget`: against the slots that an H100
can issue in the time in which its memory moves the logits, 20 forward and 40 backward in half types, twice that in fp32;
the bytes of dense targets are not counted.
The last line is `spills: N`, bytes over all kernels; the exit status is 1 if N > 0.
"""

import argparse
import ast
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _variants import typical_arguments

from focal_plugin.functional import packed
from focal_plugin.kernels.problem import Problem
from focal_plugin.math import SPECS

ARCHS = {f'sm_{n}': ('cuda', n, 32) for n in (75, 80, 86, 89, 90, 100, 120)}
ARCHS |= {name: ('hip', name, 64) for name in ('gfx90a', 'gfx942', 'gfx950')}
ARCHS |= {'gfx1100': ('hip', 'gfx1100', 32)}
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
ROWS = 200_001
# Slots a logit that an H100 can issue while its memory moves the 2 bytes of a bf16 logit (forward), or 4 (backward).
BUDGET = {'fwd': 20, 'bwd': 40}


class Instruction(NamedTuple):
    """One machine instruction.

    Attributes:
        name: of the instruction, as the disassembler writes it.
        line: the kernel's source line that it comes from.
        target: where it branches to, a label, or None.
        predicated: executed for some threads only.
    """

    name: str
    line: int
    target: str | None
    predicated: bool

    @property
    def ends(self) -> bool:
        return self.name in ('EXIT', 's_endpgm')

    @property
    def never_falls_through(self) -> bool:
        return not self.predicated and (self.ends or self.name in ('BRA', 's_branch'))

    @property
    def is_mufu(self) -> bool:
        return re.match(r'MUFU|v_(exp|log|rcp|rsq|sqrt)_', self.name) is not None

    @property
    def is_load(self) -> bool:
        return re.match(r'LDG|(buffer|global)_load', self.name) is not None

    @property
    def is_store(self) -> bool:
        return re.match(r'STG|(buffer|global)_store', self.name) is not None

    @property
    def bits(self) -> int:
        """Width of a global load or store in one thread."""
        if dwords := re.search(r'_dword(?:x(\d))?', self.name):
            return 32 * int(dwords[1] or 1)
        if small := re.search(r'_[us]?(short|byte)', self.name):
            return {'short': 16, 'byte': 8}[small[1]]
        width = re.search(r'(?:\.[US]?|_[bui])(8|16|32|64|96|128|256)\b', self.name)
        return int(width[1]) if width else 32


class Listing(NamedTuple):
    """The instructions of a kernel, and the index of the instruction at each label."""

    instructions: list[Instruction]
    labels: dict[str, int]


_LABEL = re.compile(r'(\.L\w+):')
_SASS_LINE = re.compile(r'\s*//## File "(.*)", line (\d+)')
_SASS = re.compile(r'\s*/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)(?:.*`\((\.L\w+)\))?')
_GCN_LINE = re.compile(r'\s*\.loc\s.*; (\S+?):(\d+):')
_GCN = re.compile(r'\s+()((?:s|v|ds|buffer|global|scratch|flat)_\w+)(?:\s+(\.L\w+))?')
_BRANCH = re.compile(r'BRA|CALL|JMP|s_c?branch')


def parse(text: str, source: str) -> Listing:
    """Reads `nvdisasm -c -g` or AMD's assembly text; `source`: the kernel's file, whose lines are kept."""
    is_sass = '//## File' in text
    line_mark, pattern = (_SASS_LINE, _SASS) if is_sass else (_GCN_LINE, _GCN)
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    line = 0
    for row in text.splitlines():
        if label := _LABEL.match(row):
            labels[label[1]] = len(instructions)
        elif mark := line_mark.match(row):
            line = int(mark[2]) if Path(mark[1]).name == source else 0
        elif found := pattern.match(row):
            predicate, name, target = found.groups()
            if name not in ('NOP', 's_nop'):  # padding
                target = target if _BRANCH.match(name) else None
                instructions.append(Instruction(name, line, target, bool(predicate)))
    return Listing(instructions, labels)


def executed(listing: Listing, moved: list[tuple[int, int]], total: tuple[int, int]) -> list[Instruction]:
    """What a thread executes: the shortest way to the end on which it loads and stores as much as its tile holds.

    This counts a loop by its trips, however it was unrolled, and takes the wide one of two ways to load a full tile.

    Args:
        listing: the kernel.
        moved: logits that each instruction loads and stores.
        total: logits that a thread loads and stores.
    """
    instructions, labels = listing
    came_from: dict[tuple, tuple | None] = {(0, 0, 0): None}  # (instruction, loaded, stored) -> the state before
    states = deque(came_from)
    while states:
        state = states.popleft()
        at, loaded, stored = state
        if at == len(instructions) or (instructions[at].ends and (loaded, stored) == total):
            if (loaded, stored) != total:
                continue
            way = []
            while state:
                way.append(state[0])
                state = came_from[state]
            return [instructions[n] for n in reversed(way) if n < len(instructions)]
        now = loaded + moved[at][0], stored + moved[at][1]
        if now[0] > total[0] or now[1] > total[1]:
            continue
        one = instructions[at]
        following = [] if one.never_falls_through else [at + 1]
        if one.target in labels:
            following.append(labels[one.target])
        for n in following:
            reached = (n, *now)
            if reached not in came_from:
                came_from[reached] = state
                states.append(reached)
    raise ValueError(f'no way through the code loads and stores {total} logits: unknown control flow')


def count(listing: Listing, logits_lines: set[int], logit_bits: int, slots: int, logits: float) -> dict[str, Any]:
    """The columns read off a listing.

    Args:
        listing: the kernel.
        logits_lines: source lines whose global accesses are those of logits and gradients.
        logit_bits: width of a logit.
        slots: places of the tile, of one thread; logits: how many of them are logits.
    """
    moved = [
        (i.is_load * i.bits // logit_bits, i.is_store * i.bits // logit_bits) if i.line in logits_lines else (0, 0)
        for i in listing.instructions
    ]
    has_stores = any(stored for _, stored in moved)
    way = executed(listing, moved, (slots, slots * has_stores))
    accesses = [i for i in way if i.line in logits_lines and (i.is_load or i.is_store)]
    return {
        'widest access (bits)': max(i.bits for i in accesses),
        'narrowest access (bits)': min(i.bits for i in accesses),
        'predicted slots/logit': round(len(way) / logits, 1),
        'predicted MUFU/logit': round(sum(i.is_mufu for i in way) / logits, 2),
    }


def logits_lines(function: Any) -> set[int]:
    """The source lines that load logits and store results: of a loop over the classes, or of the functions of its blocks."""
    blocks = [function.fn.__globals__.get(name) for name in ('_others', '_spread')]
    if all(blocks):
        # What a function returns can have the line after its last.
        return {block.starting_line_number + n for block in blocks for n in range(len(block.raw_src) + 2)}
    loop = next(node for node in ast.walk(ast.parse(''.join(function.raw_src))) if isinstance(node, ast.For))
    lines = range(loop.lineno, loop.end_lineno + 1)
    source = ''.join(function.raw_src).splitlines()
    others = re.compile(r'\b(?!x_|out_)\w+_ptr\b|tl\.store\(at\b')
    return {function.starting_line_number - 1 + n for n in lines if not others.search(source[n - 1])}


def launches(spec: str, dtype: torch.dtype, classes: int, target: Any) -> list[dict]:
    """What Triton's JIT would compile for a forward and a backward of the package, taken from it before it compiles."""
    from triton import knobs
    from triton.runtime import driver

    from focal_plugin.kernels.triton import elementwise, rowwise

    class Driver:
        """Stands for the driver of a GPU."""

        def get_current_target(self):
            return target

        def get_current_device(self):
            return target  # the key of the JIT's caches

        def get_current_stream(self, device):
            return 0

    seen: list[dict] = []

    def instead_of_compiling(**launch) -> bool:
        seen.append(launch)
        return True

    on_meta = {'device': 'meta'}
    variant = SPECS[spec]
    is_dense = variant.form == 'dense'
    pred = torch.empty(ROWS, classes, dtype=dtype, **on_meta)
    parameters, table = packed(variant, typical_arguments(variant, classes, 'meta'), pred)
    problem = Problem(
        pred=pred,
        target=torch.empty(ROWS, classes, **on_meta) if is_dense else torch.empty(ROWS, dtype=torch.int64, **on_meta),
        score=torch.empty(ROWS, **on_meta) if variant.form == 'scored' else None,
        weight=torch.empty(ROWS, 1, **on_meta).expand(ROWS, classes),
        table=table,
        avg_factor=torch.empty((), **on_meta),
        channel=None,
        spec=variant,
        parameters=parameters,
        activated=variant.probabilities == 'from_logits',
        ignore_index=None,
        scale=1.0,
        output='sum',
    )
    statistics = torch.empty(2, classes, dtype=torch.float64, **on_meta) if variant.statistics else None
    driver.set_active(Driver())
    more = [] if statistics is None else [statistics]
    skeleton = rowwise if variant.skeleton == 'rowwise' else elementwise
    with knobs.runtime.scope():
        knobs.runtime.jit_cache_hook = instead_of_compiling
        skeleton.forward(problem)
        skeleton.backward(problem, torch.empty((), **on_meta), *more)
    kernels = elementwise.elementwise_kernel, rowwise.rowwise_kernel
    return [launch for launch in seen if launch['fn'].jit_function in kernels]


def compiled(launch: dict, target: Any):
    """The compiled kernel of a launch."""
    import triton
    from triton.compiler import ASTSource

    request = launch['compile']
    source = ASTSource(
        launch['fn'].jit_function, request['signature'], constexprs=request['constants'], attrs=request['configs'][0]
    )
    options = json.loads(request['specialization_data'])['options']
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return triton.compile(source, target=target, options=options)


def listing_and_resources(kernel: Any) -> tuple[str, int, int]:
    """(disassembly, registers, bytes of spills a thread) of a compiled kernel."""
    if 'amdgcn' in kernel.asm:
        text = kernel.asm['amdgcn']
        resource = {name: int(value) for name, value in re.findall(r'\.(\w+_count):\s+(\d+)', text)}
        return text, resource['vgpr_count'], 4 * (resource['vgpr_spill_count'] + resource['sgpr_spill_count'])
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, 'kernel.cubin')
        cubin.write_bytes(kernel.asm['cubin'])

        def output(tool: Any, *options: str) -> str:
            return subprocess.run([tool.path, *options, cubin], check=True, capture_output=True, text=True).stdout

        text = output(knobs.nvidia.nvdisasm, '-c', '-g')
        usage = output(knobs.nvidia.cuobjdump, '--dump-resource-usage')
    registers, stack, local = re.search(r'REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)', usage).groups()
    return text, int(registers), int(stack) + int(local)


def report(spec: str, dtype: str, arch: str, classes: int) -> list[dict[str, Any]]:
    """The rows of a variant's kernels."""
    from triton.backends.compiler import GPUTarget

    target = GPUTarget(*ARCHS[arch])
    rows = []
    for launch, kind in zip(launches(spec, DTYPES[dtype], classes, target), ('fwd', 'bwd'), strict=True):
        kernel = compiled(launch, target)
        text, registers, spills = listing_and_resources(kernel)
        function = launch['fn'].jit_function
        constants = {function.arg_names[path[0]]: value for path, value in launch['compile']['constants'].items()}
        tile, width = constants['BLOCK_R'] * constants['BLOCK_C'], constants['BLOCK_C']
        used = 1 if constants.get('FLAT') else classes / width
        threads = kernel.metadata.num_warps * target.warp_size
        counted = count(
            parse(text, Path(function.fn.__code__.co_filename).name),
            logits_lines(function),
            torch.finfo(DTYPES[dtype]).bits,
            slots=tile * -int(-used // 1) // threads,
            logits=tile * used / threads,
        )
        head = {'kernel': f'{spec}_{kind}', 'dtype': dtype, 'arch': arch}
        budget = BUDGET[kind] * torch.finfo(DTYPES[dtype]).bits / 16
        of_budget = {'of the budget': round(counted['predicted slots/logit'] / budget, 2)}
        rows.append({**head, 'registers': registers, 'spills (bytes)': spills, **counted, **of_budget})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text under a heading."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join('  '.join(map(str.rjust, row, widths)) for row in cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--arch', nargs='+', choices=ARCHS, default=['sm_80', 'sm_90', 'gfx942'], metavar='ARCH')
    parser.add_argument('--dtype', nargs='+', choices=DTYPES, default=list(DTYPES))
    parser.add_argument('--spec', nargs='+', choices=SPECS, default=list(SPECS), help='variants (default: all)')
    parser.add_argument('--classes', type=int, default=80, metavar='C')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='also write the rows here')
    args = parser.parse_args()
    if args.classes < 1:
        parser.error(f'--classes {args.classes}: at least 1')
    if os.environ.get('TRITON_INTERPRET') == '1':
        sys.exit('TRITON_INTERPRET=1 interprets kernels instead of compiling them: unset it')
    try:
        import triton
    except ImportError:
        sys.exit('Triton is not installed: pip install triton')
    rows = [
        row
        for spec in args.spec
        for dtype in args.dtype
        for arch in args.arch
        for row in report(spec, dtype, arch, args.classes)
    ]
    print(f'Triton {triton.__version__}, C = {args.classes}. Predicted from the machine code: nothing was run.')
    print(table(rows))
    if args.csv:
        with args.csv.open('w', newline='') as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    spills = sum(row['spills (bytes)'] for row in rows)
    print(f'spills: {spills}')
    return 1 if spills else 0


if __name__ == '__main__':
    sys.exit(main())
