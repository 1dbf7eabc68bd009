"""How logits are cut into programs: which rows each has, and what the compiler is told about where they lie."""

import importlib.util
import math

import pytest
import torch

from focal_plugin.kernels.problem import Problem
from focal_plugin.math import SPECS

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
    return Problem(
        pred, labels, None, None, None, None, None, SPECS['focal'], [2.0, 0.25, 0.75], False, None, 1.0, 'sum'
    )


def layouts(problem: Problem) -> list:
    """Of the sum and of its gradient."""
    from focal_plugin.kernels.triton.layout import layout_of

    return [layout_of(problem), layout_of(problem, torch.empty_like(problem.pred))]


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


@maps
def test_few_places_of_programs_lie_beyond_a_plane(size):
    plane = math.prod(size)
    for layout in layouts(problem_of(size)):
        given = math.ceil(plane / layout.block_rows) * layout.block_rows
        assert given <= max(1.15 * plane, plane + 15)  # no program has fewer than 16 rows


@maps
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
def test_the_compiler_is_told_what_divides_a_plane(size, dtype):
    """As far as a thread can read at once: 16 bytes."""
    plane = math.prod(size)
    for layout in layouts(problem_of(size, dtype)):
        most = 16 // dtype.itemsize
        assert layout.align == max(n for n in (1, 2, 4, 8) if n <= most and plane % n == 0)
        assert layout.counts[2] * layout.align == plane
        x_s0, x_s1, x_s2, x_sc, *_ = layout.arguments
        assert (x_s0 * layout.align, x_s1 * layout.align, x_s2, x_sc * layout.align) == layout.strides['pred']


def test_nothing_is_said_where_the_classes_lie_next_to_each_other():
    pred, labels = torch.empty(40, 80, device='meta'), torch.empty(40, dtype=torch.int64, device='meta')
    for layout in layouts(problem_of((7, 11))._replace(pred=pred, target=labels)):
        assert layout.align == 1
