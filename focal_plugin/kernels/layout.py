"""How a kernel walks the logits: dimensions joined, tiles chosen."""

from __future__ import annotations
import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from focal_plugin.kernels.problem import Problem

# (elements, warps) of a program, the fastest on an H100: with 8 elements or fewer a thread, many wait for memory at once;
# in a flat sum, what is found once a row costs less the more places of a row per thread has.
DENSE, SUMMED, SUMMED_FLAT = (1024, 4), (512, 2), (2048, 4)
STORED, STORED_MAP, STORED_FLAT, STORED_FEW = (512, 4), (512, 2), (1024, 4), (512, 4)
GATHERED = 2048, 4  # statistics: each program writes two numbers per class
GROUP = 16  # bytes that a thread reads or writes at a time, at best
CLASSES = 64  # of a tile at most, unless the rows are few
PIXELS = 16  # of a mask, whatever its size: masks have many
STRIP = 512  # bytes of a class's logits in a tile, where they begin anywhere
WARPS = 4
LANES = 64 if torch.version.hip else 32  # of a warp
MAX_ROW_DIMS = 3
PROGRAMS = 1024  # enough for a whole chip
TRIPS = 8  # blocks of classes that a program takes one after the other though the chip has room for more programs
SHORT = {'pred': 'x', 'target': 't', 'score': 's', 'weight': 'w', 'upstream': 'u', 'out': 'o'}  # in names of strides
OPERANDS = tuple(SHORT)
ALIGNED = ('pred', 'out')


@dataclass(frozen=True)
class Layout:
    """Sizes and strides as the kernels take them.

    Attributes:
        rows, classes: the logits as a matrix.
        dims: dimensions of the rows; sizes: of the two innermost, the last of which is a plane.
        strides: (rows..., classes) of each of OPERANDS.
        inner: whose logits are neighbours: a 'row' of classes has them, or a 'plane' of rows, or none ('').
        align: what divides the distances of planes, and in planes of neighbours their size and the distances of classes.
        weight: 'none', 'row' (the same for all classes of a row) or 'element'.
        flat: walk contiguous logits in their order instead of in tiles.
        narrow: a thread walks the few classes of its rows.
        block_rows, block_classes: the tile, where flat groups of neighbours; warps: that share it.
        splits, span: programs that share the classes of their rows, and how many blocks of them each takes.
    """

    rows: int
    classes: int
    dims: int
    sizes: tuple[int, int]
    strides: dict[str, tuple[int, ...]]
    inner: str
    align: int
    weight: str
    flat: bool
    narrow: bool
    block_rows: int
    block_classes: int
    warps: int
    splits: int
    span: int

    @property
    def numbers(self) -> dict[str, int]:
        """Classes, the sizes of the two innermost dimensions of rows, and strides, as the kernels name them."""
        n1, n2 = self.sizes
        found = {'C': self.classes, 'n1': n1, 'n2': n2 // self._align_of_planes}
        for name, (*outer, row, step) in self.strides.items():
            align, step_align = (self.align, self._align_of_planes) if name in ALIGNED else (1, 1)
            short = SHORT[name]
            found.update({f'{short}_s{k}': stride // align for k, stride in enumerate(outer)})
            found.update({f'{short}_s2': row, f'{short}_sc': step // step_align})
        del found['s_sc']  # a score has no classes
        return found

    @property
    def _align_of_planes(self) -> int:
        """What a plane's size and the distances of classes are counted in."""
        return self.align if self.inner == 'plane' else 1

    def in_order(self, name: str) -> bool:
        """Whether an operand is contiguous, as flat logits are."""
        return _in_order(self.rows, self.classes, self.strides[name])

    @property
    def masks_classes(self) -> bool:
        """Whether a block may have places beyond the last class; said of every long one, so that sizes share a kernel."""
        return self.classes % self.block_classes != 0 or self.block_classes > CLASSES

    @property
    def may_split(self) -> bool:
        """Whether programs may share rows, which is said of all planes, so that their sizes share a kernel."""
        return self.splits > 1 or self.inner == 'plane'

    @property
    def programs(self) -> int:
        if self.flat:
            return -(-self.rows * self.classes // (self.block_rows * self.block_classes))
        return _tiles(self.rows, self.sizes[1], self.block_rows)


def _tiles(rows: int, plane: int, block_rows: int) -> int:
    """How many there are of so many rows each, none of which has rows of two planes."""
    return rows // max(plane, 1) * -(-plane // block_rows)


def at_once(pred: Tensor) -> int:
    """Logits that a program reads in one access of each thread, of GROUP bytes."""
    return WARPS * LANES * GROUP // pred.element_size()


def _in_order(rows: int, classes: int, strides: tuple[int, ...]) -> bool:
    """Whether an operand's places follow one another as those of a contiguous matrix."""
    *_, row, step = strides
    return (rows == 1 or row == classes) and (classes == 1 or step == 1)


def _joined(dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """(size, stride of each operand) of the dimensions, those joined that every operand walks through in one step."""
    dims = sorted((d for d in dims if d[0] != 1), key=lambda d: -d[1])
    joined: list[tuple[int, ...]] = []
    for size, *strides in dims:
        if joined and all(slow == fast * size for slow, fast in zip(joined[-1][1:], strides)):
            joined[-1] = (joined[-1][0] * size, *strides)
        else:
            joined.append((size, *strides))
    return joined


def _power_of_two(n: int, most: int) -> int:
    """The largest power of two that divides n, at most `most`."""
    return min(n & -n, most)


def _tile(classes: int, block: int, most: int) -> tuple[int, int]:
    """(rows, classes) of a tile with at most so many classes, a number that divides theirs unless it is too small."""
    width = _power_of_two(classes, most)
    if width < min(8, most):
        width = min(1 << (classes - 1).bit_length(), most)
    return block // width, width


def _most_classes(classes_inner: bool, block: int, align: int, itemsize: int) -> int:
    """Of a tile: few where the rows lie next to each other, so that it has many of those.

    A strip of rows touches a sector more than it fills, unless it begins where one does.
    """
    if classes_inner:
        return CLASSES
    return 8 if align * itemsize == GROUP else max(1, min(8, block * itemsize // STRIP))


def _program(
    labels: bool, stores: bool, flat: bool, statistics: bool, classes: int, classes_inner: bool
) -> tuple[int, int]:
    """(elements, warps) of a program."""
    if not labels:
        return DENSE
    if statistics or LANES != 32:  # AMD's have not been measured
        return GATHERED
    if not stores:
        return SUMMED_FLAT if flat else SUMMED
    if not flat:
        return STORED if classes_inner else STORED_MAP
    return STORED_FLAT if classes >= 8 else STORED_FEW


def _inner(strides: dict[str, tuple[int, ...]]) -> str:
    """The inner of a layout; gradients lie in rows where logits do, or there are none."""
    (*_, row, step), (*_, gradient_step) = strides['pred'], strides['out']
    if step == 1 and gradient_step in (0, 1):
        return 'row'
    return 'plane' if row == 1 else ''


def _align(strides: dict[str, tuple[int, ...]], inner: str, plane: int, itemsize: int) -> int:
    """The align of a layout: what a thread reads at a time at best, or half of that, or 1; for each there is a kernel.

    Kernels multiply by it in the integers that they are passed: 1 leaves distances that 32 bits don't count to 64.
    """
    distances = [stride for name in ALIGNED for stride in strides[name][:-2]]
    if inner == 'plane':
        distances += [plane, *(strides[name][-1] for name in ALIGNED)]
    most = GROUP // itemsize
    divides = _power_of_two(functools.reduce(math.gcd, distances, 0), most) if inner else 1
    return divides if divides >= most // 2 and max(map(abs, distances), default=0) < 2**31 else 1


def _shared(
    rows: int, plane: int, classes: int, block: int, warps: int, block_rows: int, block_classes: int, inner: str
) -> tuple[int, int, int, int]:
    """(block_rows, block_classes, splits, span): where rows are few and long, several programs share them.

    Of few rows per program has one, however many there are: every other size would be a kernel to compile.
    """
    if inner != 'plane' and plane < block_rows and block_classes < classes:
        longest = 1 << (classes - 1).bit_length()
        least = 2 * warps * LANES  # prim.reciprocal_by_two takes a thread's logits in pairs
        block_rows = max(1, least // longest)
        block_classes = min(block // block_rows, longest)
    blocks = -(-classes // block_classes)
    wanted = 1 if inner != 'plane' and blocks <= TRIPS else -(-PROGRAMS // _tiles(rows, plane, block_rows))
    splits = min(blocks, wanted)
    if classes % block_classes == 0:  # nothing is masked, also in the last one's share
        splits = next(n for n in range(splits, blocks + 1) if blocks % n == 0)
    span = -(-blocks // splits)
    return block_rows, block_classes, -(-blocks // span), span


def layout_of(
    problem: Problem, out: Tensor | None = None, upstream: Tensor | None = None, statistics: bool = False
) -> Layout | None:
    """The layout of a problem, or None where more than three dimensions of rows don't join."""
    pred, labels = problem.selected(problem.pred), problem.has_labels
    by_row = out is not None and out.dim() < pred.dim()

    def steps(tensor: Tensor | None, per_row: bool = False) -> tuple[int, ...]:
        if tensor is None:
            return (0,) * pred.dim()
        return (*tensor.stride(), 0) if per_row else tensor.stride()

    operands = [
        pred.stride(),
        steps(problem.target, labels),
        steps(problem.score, True),
        steps(problem.weight),
        steps(upstream),
        steps(out, by_row),
    ]
    dims = list(zip(pred.shape, *operands))
    one = (1, *[0] * len(operands))
    if problem.channel is not None:
        *row_dims, classes = dims
    elif labels or problem.per_class_parameters is not None or by_row or statistics:
        classes, row_dims = dims[-1], _joined(dims[:-1])
    else:
        *row_dims, classes = _joined(dims) or [one]
        if not row_dims:  # all in one line: rows of one class, so that no size becomes a constant of the kernel
            row_dims, classes = [classes], one
    if len(row_dims) > MAX_ROW_DIMS:
        return None

    rows = math.prod(size for size, *_ in row_dims)
    padded = [one] * (MAX_ROW_DIMS - len(row_dims)) + row_dims
    strides = {name: tuple(dim[k] for dim in (*padded, classes)) for k, name in enumerate(OPERANDS, 1)}
    size = classes[0]

    alike = ('pred',) if out is None or by_row else ('pred', 'out')
    in_order = len(row_dims) <= 1 and all(_in_order(rows, size, strides[name]) for name in alike)
    in_order = in_order and problem.channel is None
    stores = out is not None and not by_row
    # What is one per class, a tile has once for all of its rows.
    by_place = stores and problem.per_class_parameters is None and not statistics and LANES == 32
    # A thread to a row: of more rows, most tiles would have a positive.
    narrow = in_order and labels and 1 < size < 8 and not by_place
    flat = in_order and not narrow and not by_row and not statistics and (size % 8 != 0 or by_place)
    *_, row_stride, class_stride = strides['pred']
    inner, plane = _inner(strides), padded[-1][0]
    align = _align(strides, inner, plane, pred.element_size())
    block, warps = _program(labels, stores, flat, statistics, size, class_stride <= row_stride)
    block = block if labels else max(block, at_once(pred))
    if narrow:
        block_rows, block_classes, warps = 128, 1, 1
    elif flat:
        group = GROUP // pred.element_size()
        block_classes = group if size >= group else 1
        block_rows = block // block_classes
    elif problem.channel is not None:
        block_rows, block_classes = block // PIXELS, PIXELS
    else:
        most = _most_classes(class_stride <= row_stride, block, align, pred.element_size())
        block_rows, block_classes = _tile(size, block, most)
    splits, span = 1, -(-size // block_classes)
    if not (flat or narrow) and rows > 0:
        block_rows, block_classes, splits, span = _shared(
            rows, plane, size, block, warps, block_rows, block_classes, inner
        )
    weight = 'none' if problem.weight is None else 'row' if strides['weight'][-1] == 0 or size == 1 else 'element'
    return Layout(
        rows=rows,
        classes=size,
        dims=max(1, len(row_dims)),
        sizes=(padded[-2][0], plane),
        strides=strides,
        inner=inner,
        align=align,
        weight=weight,
        flat=flat,
        narrow=narrow,
        block_rows=block_rows,
        block_classes=block_classes,
        warps=warps,
        splits=splits,
        span=span,
    )
