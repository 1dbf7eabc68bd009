"""How logits are cut into programs: which rows each has, and what the compiler is told about where they lie."""

import importlib.util
import math

import pytest
import torch

from focal_plugin.kernels.problem import Problem
from tests.kernels.problems import focal_problem

pytestmark = pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='Triton is not installed')
SIZES = {
    'P3 of 800 x 1344': (100, 168),
    'P4: a multiple of 8': (50, 84),
    'P5: a multiple of 2': (25, 42),
    'P6: odd': (13, 21),
    'P7: fewer rows than a program takes': (7, 11),
}
maps = pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)


def problem_of(size, dtype=torch.float32, anchors=9, classes=80) -> Problem:
    """Logits as a head's convolution leaves them, (N, A * C, H, W), read as (N, H, W, A, C)."""
    pred = torch.empty(2, anchors * classes, *size, dtype=dtype, device='meta')
    pred = pred.view(2, anchors, classes, *size).permute(0, 3, 4, 1, 2)
    labels = torch.empty(pred.shape[:-1], dtype=torch.int64, device='meta')
    return focal_problem(pred, labels)


def layouts_of(problem: Problem, *out: torch.Tensor):
    from focal_plugin.kernels.layout import layout_of

    return layout_of(problem, *out)


def layouts(problem: Problem) -> list:
    """Of the sum and of its gradient."""
    return [layouts_of(problem), layouts_of(problem, torch.empty_like(problem.pred))]


@maps
def test_a_program_has_rows_of_one_plane_and_each_row_one_program(size):
    """The kernels' arithmetic (operands.rows_of and row_offset), once more: the place of each logit of a class."""
    problem = problem_of(size)
    for layout in layouts(problem):
        n1, plane = layout.sizes
        tiles = math.ceil(plane / layout.block_rows)
        places = []
        for program in range(layout.programs):
            at, first = program // tiles, program % tiles * layout.block_rows
            *outer, row_stride, _ = layout.strides['pred']
            start = at // n1 * outer[0] + at % n1 * outer[1]
            places += [start + row * row_stride for row in range(first, min(first + layout.block_rows, plane))]
        batch, stride = problem.pred.shape[0], problem.pred.stride()
        expected = {
            n * stride[0] + a * stride[3] + hw for n in range(batch) for a in range(9) for hw in range(math.prod(size))
        }
        assert len(places) == len(expected) and set(places) == expected


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
def test_few_places_of_programs_lie_beyond_a_plane(dtype):
    """Of all levels of an image; the smallest have many, lest each size has a kernel of its own."""
    rows = sum(math.prod(size) for size in SIZES.values())
    for levels in zip(*(layouts(problem_of(size, dtype)) for size in SIZES.values()), strict=True):
        assert sum(math.ceil(each.sizes[1] / each.block_rows) * each.block_rows for each in levels) <= 1.05 * rows
        assert len({(each.align, each.block_rows, each.block_classes) for each in levels}) == len(
            {each.align for each in levels}
        )


@maps
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
def test_strips_of_a_class_are_long_where_they_begin_anywhere(size, dtype):
    """They touch a sector of 32 bytes more than they fill: at most 15 % of it, but for a plane's last strip."""
    for layout in layouts(problem_of(size, dtype)):
        strip, sector = layout.block_rows * dtype.itemsize, 32
        assert (sector - layout.align * dtype.itemsize) / strip <= 0.15


@maps
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
def test_the_compiler_is_told_what_divides_a_plane(size, dtype):
    """16 bytes, which a thread reads at once, or half of that: each is a kernel more."""
    plane, most = math.prod(size), 16 // dtype.itemsize
    for layout in layouts(problem_of(size, dtype)):
        assert layout.inner == 'plane'
        assert layout.align == max(n for n in (1, most // 2, most) if plane % n == 0)
        assert layout.numbers['n2'] * layout.align == plane
        x_s0, x_s1, x_s2, x_sc = (layout.numbers[f'x_s{k}'] for k in '012c')
        assert (x_s0 * layout.align, x_s1 * layout.align, x_s2, x_sc * layout.align) == layout.strides['pred']


@pytest.mark.parametrize(('apart', 'align'), ((30 * 80, 4), (30 * 80 + 2, 2), (30 * 80 + 1, 1)))
def test_the_compiler_is_told_what_divides_the_distance_of_rows_that_do_not_join(apart, align):
    """Rows of some images, sliced from longer ones: the classes of a row are neighbours, and no size of a plane matters."""
    pred = torch.empty(7 * apart, device='meta').as_strided((7, 25, 80), (apart, 80, 1))
    labels = torch.empty(7, 25, dtype=torch.int64, device='meta')
    like = torch.empty(7 * apart, device='meta').as_strided((7, 25, 80), (apart, 80, 1))
    layout = layouts_of(problem_of((7, 11))._replace(pred=pred, target=labels), like)
    assert (layout.inner, layout.align, layout.numbers['n2']) == ('row', align, 25)
    assert layout.numbers['x_s1'] * align == apart


def test_distances_that_32_bits_do_not_count_are_multiplied_in_64():
    """A kernel multiplies what it is passed by what divides it: 2 ** 28 times 8 is negative in 32 bits."""
    pred = torch.empty(2, 16, 512, 512, 512, dtype=torch.bfloat16, device='meta').movedim(1, -1)[:, ::2]
    labels = torch.empty(pred.shape[:-1], dtype=torch.int64, device='meta')
    for layout in layouts(focal_problem(pred, labels)):
        assert layout.strides['pred'][0] == 2**31
        assert layout.numbers['x_s0'] >= 2**31 or layout.numbers['x_s0'] * layout.align < 2**31


def test_nothing_is_said_where_the_classes_lie_next_to_each_other():
    pred, labels = torch.empty(40, 80, device='meta'), torch.empty(40, dtype=torch.int64, device='meta')
    for layout in layouts(problem_of((7, 11))._replace(pred=pred, target=labels)):
        assert layout.align == 1
