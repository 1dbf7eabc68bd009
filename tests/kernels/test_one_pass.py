"""The native kernel's sum and gradient in one pass are those of its two passes, and live as the gradient of a loss does.

Values and gradients against the oracle are in test_variants.py and test_accuracy.py, whose sums take this pass too.
"""

import gc

import pytest
import torch
import torch.utils.checkpoint

import focal_plugin
from focal_plugin import functional
from focal_plugin.losses import FusedEqualizedFocalLoss, FusedFocalLoss
from focal_plugin.math import SPECS
from focal_plugin.ops import library
from focal_plugin.ops.autograd import loss_of
from tests.kernels.problems import focal_problem
from tests.variants import POINTS, VARIANTS

pytestmark = pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')
N, C = 1031, 7  # several tiles, none of them whole
INF = float('inf')
KEPT = pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=('fp32', 'bf16'))


@pytest.fixture(autouse=True)
def native():
    with focal_plugin.use_backend('native'):
        yield


def logits(rows: int, classes: int) -> torch.Tensor:
    torch.manual_seed(0)
    return 4 * torch.randn(rows, classes)


def labels(classes: int, background: float = 0.5) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.where(torch.rand(N) < background, classes, torch.randint(0, classes, (N,)))


def two_passes(call, pred: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(value, gradient) of call(pred): the value without a gradient, the gradient with the one pass switched off."""
    with torch.no_grad():
        value = call(pred)
    leaf = pred.detach().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, 'has_one_pass', lambda *_: False)
        call(leaf).backward()
    return value, leaf.grad


def one_pass(call, pred: torch.Tensor, monkeypatch) -> tuple[torch.Tensor, torch.Tensor]:
    calls, run = [], library.forward_and_backward
    monkeypatch.setattr(library, 'forward_and_backward', lambda *args: calls.append(1) or run(*args))
    leaf = pred.detach().requires_grad_()
    value = call(leaf)
    value.backward()
    assert calls == [1]
    return value.detach(), leaf.grad


def assert_same(seen: torch.Tensor, wanted: torch.Tensor) -> None:
    """To the bit: the compiler fuses nothing by itself, so that two loops of one formula round alike."""
    torch.testing.assert_close(seen, wanted, rtol=0, atol=0)


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


@pytest.mark.parametrize('gamma', (2.0, [0.5, 1.0, 2.0, 5.0, 0.0, 1.5, 9.0]), ids=('a number', 'one per class'))
def test_backward_twice_under_a_factor(gamma):
    """The first takes the kept gradient and multiplies it in place; the second must not find it multiplied."""
    pred = logits(N, C).requires_grad_()
    loss = functional.sigmoid_focal_loss(pred, labels(C), gamma=gamma, avg_factor=3.0)
    (plain,) = torch.autograd.grad(functional.sigmoid_focal_loss(pred, labels(C), gamma=gamma, avg_factor=3.0), pred)
    for factor in (0.3, 0.3, 4.0):
        (grad,) = torch.autograd.grad(factor * loss, pred, retain_graph=True)
        assert torch.equal(grad, factor * plain)
    (grad,) = torch.autograd.grad(loss, pred)
    assert torch.equal(grad, plain)


def test_two_leaves_that_accumulate_a_kept_gradient():
    """p.grad may be the kept gradient's memory; what is added to it must not reach the graph."""
    pred = logits(N, C).requires_grad_()
    loss = functional.sigmoid_focal_loss(pred, labels(C))
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        if times == 1:
            plain = pred.grad.clone()
    torch.testing.assert_close(pred.grad, 3 * plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize('backend', ('native', 'torch'))
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16, torch.float16))
@pytest.mark.parametrize('kind', ('focal', 'softmax', 'with statistics'))
def test_the_same_bits_for_any_number_of_threads_and_backwards(backend, dtype, kind):
    pred, target = logits(40_000, C).to(dtype), torch.randint(0, C, (40_000,))
    function = {'focal': functional.sigmoid_focal_loss, 'softmax': functional.softmax_focal_loss}.get(
        kind, functional.equalized_focal_loss
    )
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            arguments = {'statistics': torch.zeros(2, C, dtype=torch.float64)} if kind == 'with statistics' else {}
            leaf = pred.clone().requires_grad_()
            with focal_plugin.use_backend(backend):
                loss = function(leaf, target, avg_factor=700.3, **arguments)
                grads = [torch.autograd.grad(0.3 * loss, leaf, retain_graph=True)[0] for _ in range(2)]
                with torch.no_grad():
                    alone = function(leaf, target, avg_factor=700.3)
            results.append([loss.detach(), alone, *grads, *arguments.values()])
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
    value, alone, first, second, *_ = results[0]
    assert torch.equal(value, alone) and torch.equal(first, second)


def test_logits_changed_before_the_backward_are_noticed():
    pred = logits(N, C).requires_grad_()
    changed = pred * 1
    loss = functional.sigmoid_focal_loss(changed, labels(C))
    changed.add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize('use_reentrant', (False, True))
def test_under_activation_checkpointing(use_reentrant):
    pred = logits(N, C)
    plain, checkpointed = (pred.clone().requires_grad_() for _ in range(2))

    def call(leaf):
        return functional.sigmoid_focal_loss(leaf * 2, labels(C))

    call(plain).backward()
    torch.utils.checkpoint.checkpoint(call, checkpointed, use_reentrant=use_reentrant).backward()
    assert torch.equal(checkpointed.grad, plain.grad)


def test_what_a_forward_keeps_is_seen_by_the_hooks_of_saved_tensors():
    """Activation checkpointing without reentrance drops what the hooks see, and offloading moves it."""
    seen = []
    leaf = logits(N, C).requires_grad_()

    def pack(tensor):
        seen.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = functional.sigmoid_focal_loss(leaf, labels(C))
    loss.backward()
    assert leaf.grad.untyped_storage().data_ptr() in seen


def test_a_checkpointed_loss_keeps_no_gradient_between_the_passes():
    leaf, target = logits(N, C).requires_grad_(), labels(C)
    loss = torch.utils.checkpoint.checkpoint(
        lambda x: functional.sigmoid_focal_loss(x * 2, target), leaf, use_reentrant=False
    )
    size = leaf.numel() * 4
    alive = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.untyped_storage().nbytes() == size]
    assert {t.untyped_storage().data_ptr() for t in alive} == {leaf.untyped_storage().data_ptr()}
    loss.backward()
    assert leaf.grad is not None


@pytest.mark.parametrize('factor', (1.0, 0.5, 0.25, 1 / 3, 0.0, -0.5, 3.0, 65536.0))
def test_a_kept_bf16_gradient_is_rounded_once(factor, monkeypatch):
    """Under every upstream gradient it is the backward's own, also where 65536 lifts subnormals to normal numbers.

    Halved subnormals alone lose a bit more, and may be one unit off.
    """
    pred = torch.cat([logits(N - 100, C), torch.linspace(-50, -25, 100)[:, None].expand(100, C)]).bfloat16()

    def call(leaf):
        return factor * functional.sigmoid_focal_loss(leaf, labels(C), reduction='sum')

    seen, wanted = one_pass(call, pred, monkeypatch)[1], two_passes(call, pred)[1]
    torch.testing.assert_close(seen, wanted, rtol=0, atol=2**-133 if factor in (0.5, 0.25) else 0)
    is_normal = wanted.abs() > 2**-126
    assert_same(seen[is_normal], wanted[is_normal])


def test_half_gradients_wait_for_the_loss_scale():
    """At 2^-24 and below float16 has no number left: kept without the scale of AMP, this gradient would be 0."""
    pred = torch.zeros(4, 1, dtype=torch.float16, requires_grad=True)
    loss = functional.sigmoid_focal_loss(pred, torch.zeros(4, dtype=torch.int64), avg_factor=1e8)
    (loss * 65536).backward()
    exact = torch.zeros(4, 1, requires_grad=True)
    (functional.sigmoid_focal_loss(exact, torch.zeros(4, dtype=torch.int64), avg_factor=1e8) * 65536).backward()
    torch.testing.assert_close(pred.grad.float(), exact.grad, rtol=2**-8, atol=0)


def test_losses_that_gather_wait_for_the_backward():
    """Equalized focal loss counts gradients, which without a backward there are none of."""
    loss = FusedEqualizedFocalLoss(num_classes=C)
    pred = logits(N, C).requires_grad_()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    value = loss(pred, labels(C))
    for key, kept in loss.state_dict().items():
        assert torch.equal(kept, before[key])
    value.backward()
    assert any(not torch.equal(kept, before[key]) for key, kept in loss.state_dict().items())


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
