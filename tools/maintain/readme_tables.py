"""Writes the generated parts of the documents: what tools/results holds, and what the specs say."""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from focal_plugin.check_swap.pairing import HEADS, TARGETS
from focal_plugin.losses import CLASSES
from focal_plugin.math import SPECS
from tools.benchmarks import kernel_tables, results, tables, version_tables
from tools.benchmarks.contenders import COMPILED, FORMULA, MMDET, OURS
from tools.benchmarks.results import ROOT, read
from tools.benchmarks.tables import Row, label
from tools.maintain import class_logits, variant_pages

# What the README shows of the benchmark, for every machine: many logits, and on a GPU so few that Python takes longer.
SHOWN = (('cpu', 'native', '200000x80'), ('cuda', 'triton', '1459224x80'), ('cuda', 'triton', '200000x80'))


UNREDUCED = {
    '': '',
    'element': 'sums over the classes itself: takes no loss of one value per row (softmax, quality)',
    'row': 'picks rows by their losses: takes none of one value per logit',
}


def of(device: str, path: Path) -> list[Row]:
    return [row for row in read(path) if row['device'] == device]


def contenders(path: Path, **columns: str) -> dict[str, Row]:
    """The rows with these values by contender, of the machine that is last in the file."""
    rows = [row for row in read(path) if columns.items() <= row.items()]
    return {row['contender']: row for row in rows if row['machine'] == rows[-1]['machine']}


def promises() -> str:
    """What is promised, with a sentence of what was measured, or predicted where it says so."""
    errors = [contenders(results.ACCURACY, dtype='float32', target=target) for target in ('negative', 'positive')]
    worst = max((rows[OURS['native']][f'{kind}_error'] for rows in errors for kind in ('value', 'grad')), key=float)
    below, above = errors[0][MMDET]['value_below'], errors[1][MMDET]['value_above']
    heads = contenders(results.MAPS, device='cpu', work='RetinaNet, maps of 512 x 512')
    ours, theirs = heads['FusedRetinaHead'], heads['RetinaHead, mmdet FocalLoss']
    focal = {
        row['dtype']: row
        for row in read(results.KERNEL_TIMES)
        if (row['variant'], row['backend']) == ('focal', 'triton')
    }
    machine = focal['float32']['machine']
    float32, bfloat16 = (
        f'{focal[dtype]["forward_share"]} and {focal[dtype]["backward_share"]}' for dtype in ('float32', 'bfloat16')
    )
    sentences = [
        f'**Exact at every logit.** Measured on {errors[0][MMDET]["machine"]}: a relative error of at most {worst} in '
        f"float32, where mmdet's `FocalLoss` is off by more than 1 % below {below} and above {above}.",
        f'**Heads that never copy their logits.** Measured on {ours["machine"]}: the losses of `FusedRetinaHead` on maps '
        f"of 512 x 512 take {ours['both_ms']} ms and {ours['extra_memory']} x the logits; mmdet's head and loss "
        f'{theirs["both_ms"]} ms and {theirs["extra_memory"]} x.',
        f'**As fast as memory allows.** Measured on {machine}: forward and backward of the focal loss move what they read '
        f'and write at {float32} of the speed of a copy of the logits in float32, at {bfloat16} in bfloat16.',
        '**Fast and lean.** Measured: time of loss and gradient of float32 logits, and memory beyond the logits, in '
        "multiples of theirs (1 x: the gradient alone); on a GPU the kernels' time, in brackets the whole step's.",
    ]
    bullets = [textwrap.fill(f'- {text}', 125, subsequent_indent='  ') for text in sentences]
    return '\n'.join([*bullets, '', speed()])


def speed() -> str:
    """Time and memory of FusedFocalLoss and its peers, on a CPU and on a GPU."""
    peers = (MMDET, FORMULA, COMPILED)
    lines = []
    for device, backend, shape in SHOWN:
        work = dict(device=device, dtype='float32', shape=shape)
        for machine in dict.fromkeys(row['machine'] for row in read(results.BENCHMARK) if work.items() <= row.items()):
            rows = contenders(results.BENCHMARK, machine=machine, **work)
            cells = [f'{took(rows[name])}, {rows[name]["extra_memory"]} x' for name in (OURS[backend], *peers)]
            lines.append([machine, label(shape), *cells])
    return tables.markdown(['measured on', 'logits', 'FusedFocalLoss', *peers], lines)


def took(row: Row) -> str:
    """A time; of a GPU what its kernels work, in brackets with Python."""
    return f'{row["gpu_ms"]} ms ({row["both_ms"]})' if row['gpu_ms'] else f'{row["both_ms"]} ms'


def losses() -> str:
    lines = []
    for name, spec in SPECS.items():
        formula = spec.formula.replace('|', '\\|')
        paper = f'[{spec.paper}](https://arxiv.org/abs/{spec.paper})'
        lines.append([f'`{CLASSES[name].__name__}`', f'`{spec.function}`', formula, paper, f'[{name}](configs/{name})'])
    return tables.markdown(['class', 'function', 'loss', 'paper', 'configs'], lines)


def heads() -> str:
    lines = []
    for name, head in HEADS.items():
        handed = 'probabilities' if head.probabilities else 'logits'
        limits = [UNREDUCED[head.unreduced], '' if head.quality else 'takes no QualityFocalLoss', head.note]
        remark = f'fixed: {head.fixed}' if head.fixed else '; '.join(filter(None, limits))
        lines.append([f'`{name}`', handed, TARGETS[head.targets], head.activation, remark])
    return tables.markdown(['head', 'hands over', 'target', 'activation', 'remarks'], lines)


DOCUMENTS: dict[str, dict[str, Callable[[], str]]] = {
    'README.md': {
        'promises': promises,
        'serves': lambda: version_tables.serves(read(results.STACKS)),
        'losses': losses,
    },
    'configs/README.md': {'losses': variant_pages.index, 'heads': heads, 'class_logits': class_logits.table},
    'configs/hosts/README.md': {'hosts': lambda: version_tables.hosts(read(results.HOSTS))},
    **variant_pages.PAGES,
    'tools/results/README.md': {
        'benchmark': lambda: tables.benchmark(of('cpu', results.BENCHMARK)),
        'calls': lambda: tables.calls(read(results.CALLS)),
        'variants': lambda: tables.variants(read(results.VARIANTS)),
        'maps': lambda: tables.maps(of('cpu', results.MAPS)),
        'benchmark_gpu': lambda: '\n\n'.join(
            [tables.benchmark(of('cuda', results.BENCHMARK)), tables.training(of('cuda', results.TRAINING))]
        ),
        'cut': lambda: tables.cut(of('cpu', results.CUT)),
        'cut_gpu': lambda: tables.cut(of('cuda', results.CUT)),
        'steps': lambda: tables.steps(read(results.STEPS)),
        'maps_gpu': lambda: tables.maps(of('cuda', results.MAPS)),
        'kernels': lambda: kernel_tables.predicted(read(results.KERNELS)),
        'kernel_times': lambda: kernel_tables.measured(read(results.KERNEL_TIMES), read(results.KERNELS)),
        'bytes': lambda: tables.moved(read(results.BYTES)),
        'accuracy': lambda: tables.accuracy(read(results.ACCURACY)),
        'triton_versions': lambda: version_tables.triton_versions(read(results.TRITON_VERSIONS)),
        'stacks': lambda: version_tables.stacks(read(results.STACKS)),
    },
}
"""The parts of each document, by the names of their markers."""


def replaced(document: Path, name: str, text: str, part: str) -> str:
    begin, end = f'<!-- {name}:begin -->', f'<!-- {name}:end -->'
    if text.count(begin) != 1 or text.count(end) != 1:
        sys.exit(f'{document} must hold {begin} and {end} once each')
    return re.sub(f'{begin}.*{end}', lambda _: f'{begin}\n\n{part}\n\n{end}', text, flags=re.DOTALL)


def generated(root: Path) -> dict[Path, str]:
    """Each document as it has to be."""
    found = {}
    for name, parts in DOCUMENTS.items():
        document, begins = root / name, variant_pages.NEW.get(name)
        text = begins() if begins and not document.exists() else document.read_text()
        for marker, part in parts.items():
            text = replaced(document, marker, text, part())
        found[document] = text
    return found | {root / name: whole() for name, whole in variant_pages.METAFILES.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', type=Path, default=ROOT, help='the folder of the documents; default: %(default)s')
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 where a document is out of date')
    args = parser.parse_args(arguments)
    texts = generated(args.root)
    outdated = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in () if args.check else outdated:
        path.write_text(texts[path])
    if args.check and outdated:
        print(f'{", ".join(map(str, outdated))}: out of date; run python -m tools.maintain.readme_tables')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
