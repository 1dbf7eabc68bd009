"""The native kernel's sum and gradient in one pass are those of its two passes.

Values and gradients against the oracle are in test_variants.py and test_accuracy.py, whose sums take this pass too.
"""

import pytest
import torch

import focal_plugin
from focal_plugin import functional
from focal_plugin.losses import FusedFocalLoss
from focal_plugin.math import SPECS
from focal_plugin.ops.autograd import loss_of
from tests.kernels.one_pass import KEPT, C, N, assert_same, labels, logits, one_pass, two_passes
from tests.kernels.problems import focal_problem
from tests.variants import POINTS, VARIANTS

pytestmark = pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')
INF = float('inf')


@pytest.fixture(autouse=True)
def native():
    with focal_plugin.use_backend('native'):
        yield


@pytest.mark.parametrize(('name', 'reason'), POINTS, ids=lambda value: value)
@pytest.mark.parametrize('kind', ('labels', 'scored', 'one class', 'dense', 'probabilities'))
@KEPT
def test_every_loss_and_kind_of_target(dtype, name, reason, kind, monkeypatch):
    spec, classes = SPECS[name], 1 if kind == 'one class' else C
    pred, target, score = logits(N, classes).to(dtype), labels(classes), None
    if kind == 'scored':
        score = torch.rand(N).mul_(1.2).clamp_(max=1)
    if kind == 'dense':
        target = torch.where(torch.rand(N, C) < 0.7, 0, torch.rand(N, C).mul_(1.2).clamp_(max=1))
    activated = kind == 'probabilities'
    if activated:
        if not spec.probabilities:
            pytest.skip('this loss takes no probabilities')
        pred = pred.sigmoid()
    packed = list(spec.pack(**VARIANTS[name].arguments(classes, reason)))
    if any(isinstance(value, torch.Tensor) and value.numel() > 1 for value in packed):
        table = torch.stack([torch.as_tensor(value, dtype=torch.float32).expand(classes) for value in packed])
        packed = []
    else:
        table = None
    weight, factor = torch.rand(N, 1).expand(N, classes), torch.tensor(11.0)

    def call(leaf):
        return loss_of(
            focal_problem(
                leaf, target, 'native', score=score, weight=weight, per_class_parameters=table, avg_factor=factor,
                variant=name, parameters=packed, activated=activated, scale=0.5,
            )
        )  # fmt: skip

    value, grad = two_passes(call, pred)
    seen_value, seen_grad = one_pass(call, pred, monkeypatch)
    assert_same(seen_value, value)
    assert_same(seen_grad, grad)
    assert value.isfinite() and grad.abs().max() > 0


LAYOUTS = {
    'every second class': lambda pred: pred.repeat_interleave(2, 1)[:, ::2],
    'classes first': lambda pred: pred.t().contiguous().t(),
    'an NCHW map': lambda pred: pred[:1024].view(4, 16, 16, -1).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
}


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('weighted', ('one per row', 'one per element', 'none'))
@KEPT
def test_layouts_weights_and_ignored_rows(dtype, layout, weighted, monkeypatch):
    pred, target = logits(N, C).to(dtype), labels(C)
    target[::5] = 255
    pred = layout(pred)
    target = target[: pred.shape[:-1].numel()].view(pred.shape[:-1])
    weight = {'one per row': torch.rand(target.shape), 'one per element': torch.rand(pred.shape), 'none': None}[
        weighted
    ]

    def call(leaf):
        return functional.sigmoid_focal_loss(leaf, target, weight, ignore_index=255)

    value, grad = two_passes(call, pred)
    seen_value, seen_grad = one_pass(call, pred, monkeypatch)
    assert_same(seen_value, value)
    assert_same(seen_grad, grad)


@pytest.mark.parametrize('logit', (INF, -INF, 3e38, -3e38, 2e30))
@pytest.mark.parametrize('label', (0, 1))
@KEPT
def test_value_beyond_where_derivatives_are_clamped(dtype, logit, label, monkeypatch):
    """The derivative there is that of a smaller logit, the value must not be."""
    pred, target = torch.zeros(N, 1, dtype=dtype), torch.ones(N, dtype=torch.int64)
    pred[77], target[77] = logit, label

    def call(leaf):
        return functional.sigmoid_focal_loss(leaf, target, reduction='sum')

    value, grad = two_passes(call, pred)
    seen_value, seen_grad = one_pass(call, pred, monkeypatch)
    assert_same(seen_value, value)
    assert_same(seen_grad, grad)
    wrong = (logit > 0) == (label == 1)
    assert wrong == (value > 1e29)


@pytest.mark.parametrize('step', (1, 2), ids=('side by side', 'apart'))
def test_labels_of_one_class(step):
    """MaskFormer's (M, 1) logits: 0 is the mask, 1 the rest; what is ignored or wrong among them."""
    pred, target = logits(N, 1), labels(1)
    spread = torch.empty(N * step, dtype=torch.int64)[::step].copy_(target)
    dense = (target == 0).float()[:, None]
    loss = FusedFocalLoss(gamma=1.5, reduction='sum')
    leaves = [pred.clone().requires_grad_() for _ in range(2)]
    values = [loss(leaves[0], spread), loss(leaves[1], dense)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=0)
    for value in values:
        value.backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-5, atol=1e-8)
    spread[3] = 255
    ignoring = functional.sigmoid_focal_loss(pred, spread, reduction='none', gamma=1.5, ignore_index=255)
    assert ignoring[3] == 0 and (ignoring > 0).sum() == N - 1
    for bad in (2, -1, 2**40):
        spread[3] = bad
        with pytest.raises(ValueError, match=f'label {bad} '):
            loss(pred, spread)


def rows_of_softmax(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels; with a row whose label has all the probability, one without any, an infinite one and a NaN."""
    pred, target = logits(N, classes), labels(classes).clamp(max=classes - 1)
    pred[:4] = 0
    pred[range(4), target[:4]] = torch.tensor([3e38, -3e38, INF, float('nan')])
    return pred, target


SOFTMAX = {
    'focal': {},
    'another exponent': dict(gamma=1.5),
    'alpha per class': dict(alpha=[0.1, 0.7, 0.0, 1.0]),
    'ignored rows': dict(ignore_index=2),
    'divided': dict(avg_factor=torch.tensor(11.0)),
    'a weight per row': dict(weight=torch.linspace(0, 2, N)),
}


@pytest.mark.parametrize('arguments', SOFTMAX.values(), ids=SOFTMAX)
@pytest.mark.parametrize('classes', (4, 200), ids=('lanes across rows', 'lanes across classes'))
@pytest.mark.parametrize('layout', ('rows', 'a map'))
@KEPT
def test_softmax(dtype, layout, classes, arguments, monkeypatch):
    pred, target = rows_of_softmax(classes)
    if 'alpha' in arguments:
        arguments = arguments | dict(alpha=arguments['alpha'] * (classes // 4))
    pred = pred.to(dtype) if layout == 'rows' else pred.t().contiguous().t().to(dtype)
    for rows in (slice(0, 2), slice(2, 3), slice(3, 4), slice(4, N)):  # what is infinite or NaN stays among its own
        weight = arguments.get('weight')
        given = arguments if weight is None else arguments | dict(weight=weight[rows])

        def call(leaf, rows=rows, given=given):
            return functional.softmax_focal_loss(leaf, target[rows], **given)

        value, grad = two_passes(call, pred[rows])
        with monkeypatch.context() as patch:
            seen_value, seen_grad = one_pass(call, pred[rows], patch)
        torch.testing.assert_close(seen_value, value, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(seen_grad, grad, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
@KEPT
def test_statistics(dtype, layout, monkeypatch):
    pred = layout(logits(N, C).to(dtype))
    target = labels(C)[: pred.shape[:-1].numel()].view(pred.shape[:-1])
    gathered = []

    def call(leaf):
        gathered.append(torch.zeros(2, C, dtype=torch.float64))
        return functional.equalized_focal_loss(leaf, target, statistics=gathered[-1], avg_factor=3.0)

    value, grad = two_passes(call, pred)
    seen_value, seen_grad = one_pass(call, pred, monkeypatch)
    assert_same(seen_value, value)
    assert_same(seen_grad, grad)
    without, wanted, seen = gathered
    assert without.count_nonzero() == 0 and wanted.count_nonzero() == 2 * C
    assert_same(seen, wanted)
