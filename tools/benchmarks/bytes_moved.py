"""Counts the bytes per logit that RetinaNet's class loss moves to and from memory: mmdet + mmcv's on a GPU against ours.

    python -m tools.benchmarks.bytes_moved [--csv]

Counted from a trace of the operators that forward and backward run, for two images of 800 x 1333 (padded to 1344), 80
classes and 9 anchors: once from rows of logits (N, C), once from the head's maps (B, A * C, H, W) and back to them. An
operator reads each of its tensors from memory once and writes each of its results once, whatever its caches hold from the
operator before. A view moves nothing, a dimension that is only expanded (stride 0) is read once, and what an operator
writes in place it reads too. No GPU is needed and nothing is timed: the tensors are meta tensors, on which both packages go
the way that they go on a GPU. mmdet is told that it has one; in the place of mmcv's CUDA kernels are operators of the same
arguments, which read logits and labels once and write their output once; this package takes its Triton kernels, one forward
and one backward.

Labels (int64) and weights (float32) are one per row: reading both moves 12 / 80 bytes per logit. The totals hold them,
what is `of_logits` does not.
"""

import argparse
import contextlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import mmcv.ops.focal_loss
import torch
from mmdet.models.losses import FocalLoss
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from focal_plugin import backend, use_backend
from focal_plugin.kernels.layout import layout_of
from focal_plugin.kernels.problem import Problem
from focal_plugin.losses import FusedFocalLoss
from focal_plugin.maps import Map
from focal_plugin.ops import library
from tools.benchmarks.results import BYTES, table, write

CLASSES, ANCHORS, BATCH = 80, 9, 2
SIZES = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
ROWS = 'rows (N, C)'
MAPS = 'maps (B, A * C, H, W)'
THEIRS, FUSED_HEAD = 'mmdet + mmcv', 'FusedRetinaHead'
SCALARS, TOTAL = 'scalars', 'total'
MOVES = f'{THEIRS} moves'
FREE = {'_unsafe_view', 'empty', 'empty_like', 'new_empty', 'new_empty_strided'}
FILLS = {'fill_', 'new_zeros', 'ones_like', 'zero_', 'zeros_like'}
STREAMS = {'_to_copy', 'clone', 'max', 'sum'}  # beside what PyTorch itself calls pointwise


def elements(tensor: Tensor) -> int:
    """Those in memory."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(size for size, stride in sizes if stride != 0)


def size(tensors: Iterable[Tensor]) -> int:
    """Bytes."""
    return sum(elements(each) * each.element_size() for each in tensors)


def tensors_in(values) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class Trace(TorchDispatchMode):
    """Records the operators that run inside.

    Args:
        kernels: of each operator that is not PyTorch's, called with its arguments: what it writes beside its results and
            reads back. An argument that such an operator writes it does not read.

    Attributes:
        steps: the operators that moved something in their order, each with the tensors that it read or wrote.

    Raises:
        LookupError: an operator of which it is not known what it moves.
    """

    def __init__(self, kernels: Mapping[OpOverload, Callable[..., Iterable[Tensor]]] | None = None) -> None:
        super().__init__()
        self.kernels = kernels or {}
        self.steps: list[tuple[str, list[Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        moved = self._moved(func, args, kwargs or {}, out)
        if moved:
            self.steps.append((func.overloadpacket.__name__, moved))
        return out

    def _moved(self, func: OpOverload, args: tuple, kwargs: dict, out) -> list[Tensor]:
        name = func.overloadpacket.__name__
        if func in self.kernels:
            schema = zip(func._schema.arguments, args, strict=False)  # the rest are keywords or defaults
            written = [value for argument, value in schema if argument.is_write]
            read = [each for each in tensors_in((args, kwargs)) if not any(each is other for other in written)]
            return [*read, *written, *tensors_in(out), *2 * tensors_in(self.kernels[func](*args, **kwargs))]
        if func.namespace == 'aten':
            if func.is_view or name in FREE:
                return []
            if name in FILLS:
                return tensors_in(out)
            if name == 'copy_':
                return [args[1], out]
            if name in STREAMS or torch.Tag.pointwise in func.tags:
                return tensors_in((args, kwargs, out))
        raise LookupError(f'{func}: how much it moves is not known')


_mmcv = torch.library.Library('mmcv_cuda', 'DEF')
for _name, _output in (('forward', 'output'), ('backward', 'grad_input')):
    _mmcv.define(
        f'sigmoid_focal_loss_{_name}(Tensor input, Tensor target, Tensor weight, Tensor(a!) {_output}, *, '
        f'float gamma, float alpha) -> ()'
    )
    _mmcv.impl(f'sigmoid_focal_loss_{_name}', lambda *tensors, **parameters: None, 'Meta')
MMCV = torch.ops.mmcv_cuda


class Extension:
    """What mmcv's Python calls: the launchers of its CUDA kernels."""

    sigmoid_focal_loss_backward = MMCV.sigmoid_focal_loss_backward

    @staticmethod
    def sigmoid_focal_loss_forward(input, target, weight, output, **parameters) -> None:
        target.max()  # the launcher refuses labels above C
        MMCV.sigmoid_focal_loss_forward(input, target, weight, output, **parameters)


def no_scratch(*args, **parameters) -> list[Tensor]:
    return []


def partial_sums(*args) -> list[Tensor]:
    """One of each program of the Triton kernel, which its second kernel adds."""
    problem = Problem(*args)
    layout = layout_of(problem)
    if problem.backend != 'triton' or not problem.reduces or problem.channel is not None or layout is None:
        raise LookupError(f'{problem.backend} kernel with output {problem.output!r}: how much it moves is not known')
    return [torch.empty(layout.programs * layout.splits, dtype=torch.float32, device='meta')]


KERNELS = {
    MMCV.sigmoid_focal_loss_forward.default: no_scratch,
    MMCV.sigmoid_focal_loss_backward.default: no_scratch,
    library.loss_forward: partial_sums,
    library.loss_backward: no_scratch,
}


class OnGPU(TorchFunctionMode):
    """Tensors say that they are on a GPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return True if func == Tensor.is_cuda.__get__ else func(*args, **(kwargs or {}))


@contextlib.contextmanager
def as_on_gpu() -> Iterator[None]:
    """Meta tensors go the way of CUDA tensors."""
    with (
        mock.patch('torch.cuda.is_available', return_value=True),
        mock.patch.object(mmcv.ops.focal_loss, 'ext_module', Extension),
        mock.patch.multiple(backend, GPUS=('meta',), HAS_TRITON=True),
        use_backend('triton'),
        OnGPU(),
    ):
        yield


# What calls which loss.
PATHS: dict[str, dict[str, torch.nn.Module]] = {
    ROWS: {THEIRS: FocalLoss(), 'FusedFocalLoss': FusedFocalLoss()},
    MAPS: {THEIRS: FocalLoss(), 'RetinaHead, FusedFocalLoss': FusedFocalLoss(), FUSED_HEAD: FusedFocalLoss()},
}


def inputs(work: str, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Logits, labels and weights of each level; the rows of ROWS are one level."""
    rows = [ANCHORS * h * w for h, w in SIZES]
    levels = rows if work == MAPS else [sum(rows)]
    # AnchorHead's targets are those of an image, all levels one after the other, cut into levels.
    labels = torch.empty(BATCH, sum(rows), dtype=torch.int64, device='meta').split(levels, 1)
    weights = torch.empty(BATCH, sum(rows), device='meta').split(levels, 1)
    shapes = [(BATCH, ANCHORS * CLASSES, *size) for size in SIZES] if work == MAPS else [(BATCH * sum(rows), CLASSES)]
    for shape, *targets in zip(shapes, labels, weights, strict=True):
        yield torch.empty(shape, dtype=dtype, device='meta', requires_grad=True), *targets


def traced(work: str, path: str, levels: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Trace, Trace]:
    """Forward and backward."""
    with as_on_gpu(), Trace(KERNELS) as forward:
        value = 0.0
        for logits, labels, weights in levels:  # AnchorHead.loss_by_feat_single
            labels, weights, pred = labels.reshape(-1), weights.reshape(-1), logits
            if work == MAPS:
                pred = (Map(logits) if path == FUSED_HEAD else logits).permute(0, 2, 3, 1).reshape(-1, CLASSES)
            value = value + PATHS[work][path](pred, labels, weights, avg_factor=100.0)
    with as_on_gpu(), Trace(KERNELS) as backward:
        for grad in torch.autograd.grad(value, [logits for logits, *_ in levels]):
            grad.contiguous()  # as the convolution that made the maps wants it (cudnn_convolution_backward)
    return forward, backward


def counted(work: str, path: str, dtype: torch.dtype) -> dict[str, tuple[float, float]]:
    """What each kind of operator moves, and all: bytes per logit, and of them those of tensors as large as the logits."""
    levels = list(inputs(work, dtype))
    sizes = [logits.numel() for logits, *_ in levels]
    total, of_logits = Counter(), Counter()
    for phase, trace in zip(('forward', 'backward'), traced(work, path, levels), strict=True):
        for name, moved in trace.steps:
            op = SCALARS if all(elements(each) <= 1 for each in moved) else f'{phase} {name}'
            total[op] += size(moved)
            of_logits[op] += size(each for each in moved if elements(each) in sizes)
    total[TOTAL], of_logits[TOTAL] = total.total(), of_logits.total()
    return {op: (total[op] / sum(sizes), of_logits[op] / sum(sizes)) for op in total}


def rows_of(work: str, dtypes: tuple[torch.dtype, torch.dtype]) -> Iterator[dict[str, str]]:
    """A row for each path and operator, in mmdet's and in our dtype; the total is compared with mmdet's."""
    by_path = {path: counted(work, path, dtypes[path != THEIRS]) for path in PATHS[work]}
    for path, counts in by_path.items():
        name = str(dtypes[path != THEIRS]).removeprefix('torch.')
        for op, (total, of_logits) in counts.items():
            key = {'path': path, 'dtype': name, 'work': work, 'op': op}
            ratio = f'{by_path[THEIRS][TOTAL][0] / total:.2f} x' if op == TOTAL else ''
            yield key | {'bytes_per_logit': f'{total:.4g}', 'of_logits': f'{of_logits:.4g}', MOVES: ratio}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--csv', type=Path, nargs='?', const=BYTES, help='writes the counts; default file: %(const)s')
    args = parser.parse_args(arguments)
    print(
        f'Bytes per logit, counted from a trace of the operators on meta tensors that are taken for CUDA tensors (Triton '
        f'kernels,\nforward and backward); torch {torch.__version__}, mmdet {version("mmdet")}, mmcv {version("mmcv")}\n'
    )
    # mmcv's kernels take no bfloat16.
    pairs = [(torch.float32, torch.float32), (torch.float16, torch.bfloat16)]
    rows = [row for work in PATHS for dtypes in pairs for row in rows_of(work, dtypes)]
    print(table(rows))
    if args.csv:
        write(args.csv, [{name: row[name] for name in row if name != MOVES} for row in rows])
        print(f'\nrows written to {args.csv}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
