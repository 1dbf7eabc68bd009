"""The count of the bytes that a loss moves: the counter on programs counted by hand, then RetinaNet's loss."""

import csv
import importlib
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from tests.kernels.problems import focal_problem

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    return importlib.import_module('tools.benchmarks.bytes_moved')


def of(shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


N = 6 * 5
# program, bytes
PROGRAMS = {
    'a sum with a number reads and writes': (lambda: of((6, 5)), lambda x: x + 1, 8 * N),
    'half the bytes in a half type': (lambda: of((6, 5), torch.bfloat16), lambda x: x + 1, 4 * N),
    'views move nothing': (lambda: of((6, 5)), lambda x: x.t().unsqueeze(0).expand(7, -1, -1)[1:, 2:].detach(), 0),
    'a view of rows': (lambda: of((6, 5)), lambda x: x.view(30).view(3, 10), 0),
    'a permuted copy reads and writes': (lambda: of((2, 3, 5)), lambda x: x.permute(0, 2, 1).contiguous(), 8 * N),
    'a copy that reshape makes': (lambda: of((2, 3, 5)), lambda x: x.permute(0, 2, 1).reshape(-1, 3), 8 * N),
    'nothing to copy': (lambda: of((6, 5)), lambda x: x.contiguous().reshape(-1), 0),
    'in place: read and written': (lambda: of((6, 5)), lambda x: x.mul_(2), 8 * N),
    'in place, by another tensor': (lambda: of((6, 5)), lambda x: x.mul_(torch.empty_like(x)), 12 * N),
    'one per row, broadcast': (lambda: of((6, 5)), lambda x: x * x[:, :1], 4 * (N + 6 + N)),
    'an expanded number is one': (lambda: of(()), lambda x: x.expand(6, 5) * 2, 4 * (1 + N)),
    'a sum': (lambda: of((6, 5)), lambda x: x.sum(), 4 * (N + 1)),
    'zeros are written, empty is not': (lambda: of((6, 5)), lambda x: (x.new_zeros(6, 5), x.new_empty(6, 5)), 4 * N),
    'a cast': (lambda: of((6, 5)), lambda x: x.half(), 6 * N),
    'another tensor copied in': (lambda: of((6, 5)), lambda x: torch.empty_like(x, dtype=torch.half).copy_(x), 6 * N),
}


def bytes_of(tool, trace) -> int:
    return sum(tool.size(moved) for _, moved in trace.steps)


@pytest.mark.parametrize(('make', 'program', 'expected'), PROGRAMS.values(), ids=PROGRAMS)
def test_counter_on_what_is_counted_by_hand(tool, make, program, expected):
    x = make()
    with tool.Trace() as trace:
        program(x)
    assert bytes_of(tool, trace) == expected


def test_backward_is_counted(tool):
    x, weight = of((6, 5)).requires_grad_(), of((6, 1))
    with tool.Trace() as trace:
        torch.autograd.grad((x * weight).sum(), x)
    # multiplied, summed; the gradient of the sum is 1, made and expanded, and multiplied by the weights
    assert bytes_of(tool, trace) == 4 * ((N + 6 + N) + (N + 1) + 1 + (1 + 6 + N))


def test_what_is_not_known_is_refused(tool):
    x = of((6, 5))
    with tool.Trace(), pytest.raises(LookupError, match=r'mm\.default: how much it moves is not known'):
        x @ x.t()
    with tool.Trace(), pytest.raises(LookupError, match=r'index\.Tensor'):
        x[torch.tensor([0, 2])]
    logits, labels = torch.empty(6, 5, device='meta'), torch.empty(6, dtype=torch.int64, device='meta')
    with tool.as_on_gpu(), tool.Trace(), pytest.raises(LookupError, match=r'focal_plugin\.loss_forward'):
        tool.FusedFocalLoss()(logits, labels)
    with tool.as_on_gpu(), tool.Trace(tool.KERNELS), pytest.raises(LookupError, match="output 'element'"):
        tool.FusedFocalLoss(reduction='none')(logits, labels)


def test_our_operators_run_nothing_beside_the_kernels(tool, monkeypatch):
    """The trace does not see into them."""
    kernels = pytest.importorskip('focal_plugin.kernels.triton.elementwise')
    sums = importlib.import_module('focal_plugin.kernels.triton.sums')
    element, ordered, total = MagicMock(), MagicMock(), MagicMock()
    monkeypatch.setattr(kernels.tiles, 'tiled_kernel', element)
    monkeypatch.setattr(kernels.flat, 'flat_kernel', ordered)
    monkeypatch.setattr(sums, 'sum_kernel', total)
    monkeypatch.setattr(kernels.launches, '_kept', {})
    x, labels, weight, upstream = of((6, 5)), of(6, torch.int64), of((6, 1)).expand(6, 5), of(())
    problem = focal_problem(x, labels, weight=weight)
    with tool.Trace() as trace:
        kernels.forward(problem)
        kernels.backward(problem, upstream)
    assert trace.steps == []
    assert [kernel.__getitem__.call_count for kernel in (element, ordered, total)] == [1, 1, 1]


def totals(tool, work, path, dtype) -> tuple[float, float]:
    return tool.counted(work, path, dtype)['total']


# By hand from mmcv/ops/focal_loss.py and mmdet's focal_loss.py and utils.py, in passes over (N, C); R reads, W writes:
#   forward:  new_zeros W; kernel R W; loss * weight R W; sum R                                       6
#   backward: of the weight W (its upstream is one number); new_zeros W; kernel R W; grad_input *= R R W  7
# In half types the weights, float32, make the product float32 (W, sum R and backward W of 4 bytes), and its gradient is
# cast for mmcv: R of 4, W of 2.
THEIRS = {torch.float32: 4 * 13, torch.float16: 2 * 10 + 4 * 3 + (4 + 2)}
OURS = {torch.float32: 12, torch.bfloat16: 6}  # forward R; backward R W
# One a row, int64 labels and float32 weights. mmcv: labels in a check, forward, backward; weights twice. Ours: both twice.
THEIR_ROWS, OUR_ROWS = (3 * 8 + 2 * 4) / 80, 2 * (8 + 4) / 80


@pytest.mark.parametrize(('dtype', 'moved'), THEIRS.items(), ids=str)
def test_mmdet_and_mmcv_from_rows(tool, dtype, moved):
    total, of_logits = totals(tool, tool.ROWS, tool.THEIRS, dtype)
    assert of_logits == moved
    assert total == pytest.approx(moved + THEIR_ROWS, abs=1e-4)


@pytest.mark.parametrize(('dtype', 'moved'), OURS.items(), ids=str)
def test_ours_from_rows_is_the_floor(tool, dtype, moved):
    total, of_logits = totals(tool, tool.ROWS, 'FusedFocalLoss', dtype)
    assert of_logits == moved
    assert moved + OUR_ROWS <= total <= moved + OUR_ROWS + 0.01  # partial sums are written and read


@pytest.mark.parametrize(
    ('path', 'dtype', 'moved'),
    [
        # The maps are copied into rows and the gradient back, R W each; FusedRetinaHead copies neither.
        ('mmdet + mmcv', torch.float32, 52 + 16),
        ('mmdet + mmcv', torch.float16, 38 + 8),
        ('RetinaHead, FusedFocalLoss', torch.float32, 12 + 16),
        ('RetinaHead, FusedFocalLoss', torch.bfloat16, 6 + 8),
        ('FusedRetinaHead', torch.float32, 12),
        ('FusedRetinaHead', torch.bfloat16, 6),
    ],
)
def test_from_maps_and_back(tool, path, dtype, moved):
    total, of_logits = totals(tool, tool.MAPS, path, dtype)
    assert of_logits == pytest.approx(moved, abs=1e-9)
    # labels and weights are first cut out of those of all levels: R W of each
    rows = (THEIR_ROWS if path == tool.THEIRS else OUR_ROWS) + 2 * (8 + 4) / 80
    assert moved + rows - 1e-9 <= total <= moved + rows + 0.01


def test_printed_and_recorded(tool, tmp_path, capsys):
    assert tool.main(['--csv', str(tmp_path / 'bytes.csv')]) == 0
    printed = capsys.readouterr().out
    assert '4.26 x' in printed and 'counted from a trace' in printed and 'Triton' in printed
    new, recorded = (list(csv.DictReader(path.open(newline=''))) for path in (tmp_path / 'bytes.csv', tool.BYTES))
    assert [{**row, 'bytes_per_logit': 0} for row in new] == [{**row, 'bytes_per_logit': 0} for row in recorded]
    for row, before in zip(new, recorded, strict=True):
        assert float(row['bytes_per_logit']) == pytest.approx(float(before['bytes_per_logit']), rel=0.01)
