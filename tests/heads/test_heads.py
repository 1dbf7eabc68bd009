"""Heads that never copy their logits against mmdet's stock heads with the same loss."""

import pytest
import torch
from mmdet.models.dense_heads import RetinaHead
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from focal_plugin.heads.zero_copy import ZeroCopyMixin
from focal_plugin.losses import FusedPositionSupervisedLoss
from focal_plugin.maps import Map
from tests.heads.stock import (
    BOXES,
    DENSE,
    FIVE,
    HANDED,
    HANDED_PAIRS,
    HEADS,
    NO_BOXES,
    PAIRS,
    built,
    losses_of,
    outputs,
    with_loss,
)  # fmt: skip


def losses_and_gradients(head, leaves: list[list[torch.Tensor]], boxes=BOXES):
    losses = losses_of(head, leaves, boxes)
    sum(losses.values()).sum().backward()
    return losses, [leaf.grad for kind in leaves for leaf in kind]


def compare(name: str, arguments: dict, channels_last: bool = False, boxes=BOXES) -> None:
    """The head's losses and gradients are those of the stock head with the same loss."""
    stock, fused = built(name, arguments), built(f'Fused{name}', arguments)
    assert {k: v.shape for k, v in stock.state_dict().items()} == {k: v.shape for k, v in fused.state_dict().items()}
    want, want_grads = losses_and_gradients(stock, outputs(stock, channels_last), boxes)
    leaves = outputs(fused, channels_last)
    got, got_grads = losses_and_gradients(fused, leaves, boxes)
    assert got.keys() == want.keys()
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=2e-6, atol=1e-8)
    assert any(grad is not None and grad.abs().max() > 0 for grad in want_grads)
    for a, b in zip(got_grads, want_grads, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8 * float(b.abs().max()) + 1e-12)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert all(leaf.grad.is_contiguous(memory_format=memory_format) for leaf in leaves[0])


@pytest.mark.parametrize(('name', 'arguments'), HEADS.values(), ids=HEADS)
@pytest.mark.parametrize('channels_last', (False, True), ids=('NCHW', 'channels last'))
def test_same_losses_and_gradients_as_the_stock_head(name, arguments, channels_last):
    compare(name, arguments, channels_last)


@pytest.mark.parametrize(('name', 'arguments'), HEADS.values(), ids=HEADS)
def test_images_without_objects(name, arguments):
    compare(name, arguments, boxes=NO_BOXES)


@pytest.mark.parametrize(('head', 'loss'), [*PAIRS, *(('vfnet', loss) for loss in DENSE), *HANDED_PAIRS])
def test_every_loss_that_a_head_can_take(head, loss):
    compare(*with_loss(head, loss))


def test_qualities_are_divided_by_the_largest_of_all_levels():
    loss, maps = FusedPositionSupervisedLoss(normalize='batch'), [torch.randn(2, 7, 4, 5), torch.randn(2, 7, 2, 3)]
    labels, scores = torch.arange(52) % 8, torch.cat([0.9 * torch.rand(40), 0.3 * torch.rand(12)])
    lazy, plain = (
        torch.cat([kind(level).permute(0, 2, 3, 1).reshape(-1, 7) for level in maps]) for kind in (Map, torch.clone)
    )
    for target in (labels, (labels, scores)):
        torch.testing.assert_close(loss(lazy, target, avg_factor=9.0), loss(plain, target, avg_factor=9.0))


@pytest.mark.parametrize('head', (*FIVE, *HANDED))
@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
def test_half_precision_logits(head, dtype):
    compare_in_half_precision(head, *HEADS[head], dtype)


@pytest.mark.sampled(20)
@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize(('head', 'loss'), [*PAIRS, *(('vfnet', loss) for loss in DENSE), *HANDED_PAIRS])
def test_every_loss_of_half_precision_logits(head, loss, dtype):
    compare_in_half_precision(head, *with_loss(head, loss), dtype)


def compare_in_half_precision(head: str, name: str, arguments: dict, dtype: torch.dtype) -> None:
    stock, fused = built(name, arguments), built(f'Fused{name}', arguments)
    leaves = outputs(fused, False, dtype)
    # The stock VFNetHead fails at them: it sets float32 qualities into targets of the logits' dtype.
    to = torch.float32 if head == 'vfnet' else dtype
    reference = [
        [leaf.detach().to(to if kind is leaves[0] else leaf.dtype).requires_grad_() for leaf in kind] for kind in leaves
    ]
    want, _ = losses_and_gradients(stock, reference)
    got, _ = losses_and_gradients(fused, leaves)
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=2e-6, atol=1e-8)
    limits = torch.finfo(dtype)
    for a, b in zip(leaves[0], reference[0], strict=True):
        assert a.grad.dtype is dtype
        torch.testing.assert_close(a.grad.float(), b.grad.float(), rtol=limits.eps, atol=limits.smallest_normal)


REFUSED = {
    'another loss': ('retina', dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)), 'FocalLoss', 'FusedFocalLoss'),
    'another loss of quality': (
        'gfl',
        dict(loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True)),
        'QualityFocalLoss',
        'FusedQualityFocalLoss',
    ),
    'another varifocal loss': (
        'vfnet',
        dict(loss_cls=dict(type='VarifocalLoss', use_sigmoid=True)),
        'VarifocalLoss',
        'FusedVarifocalLoss',
    ),
    'one that no loss here replaces': (
        'atss',
        dict(loss_cls=dict(type='GHMC', use_sigmoid=True)),
        'GHMC',
        'FusedFocalLoss',
    ),
    'a loss of masks': (
        'fcos',
        dict(loss_cls=dict(type='FusedMaskFocalLoss', use_sigmoid=True)),
        'FusedMaskFocalLoss',
        'FusedFocalLoss',
    ),
}


@pytest.mark.parametrize(('head', 'given', 'loss', 'instead'), REFUSED.values(), ids=REFUSED)
def test_a_loss_that_needs_the_copies_is_refused(head, given, loss, instead):
    name, arguments = HEADS[head]
    with pytest.raises(TypeError, match=rf"got {loss}: write loss_cls=dict\(type='{instead}'.*or go back to {name}$"):
        built(f'Fused{name}', arguments | given)


def test_the_refusal_names_the_argument_that_the_head_reads():
    name, arguments = HEADS['vfnet, labels']
    with pytest.raises(TypeError, match=r"got FocalLoss: write loss_cls_fl=dict\(type='FusedFocalLoss'"):
        built(f'Fused{name}', arguments | dict(loss_cls_fl=dict(type='FocalLoss', use_sigmoid=True)))


def test_the_loss_of_the_first_epochs_is_refused_too():
    name, arguments = HEADS['tood']
    theirs = dict(type='FocalLoss', use_sigmoid=True, activated=True)
    with pytest.raises(TypeError, match=r"got FocalLoss: write initial_loss_cls=dict\(type='FusedFocalLoss'"):
        built(f'Fused{name}', arguments | dict(initial_loss_cls=theirs))


@pytest.mark.parametrize('head', (*FIVE, *HANDED))
def test_a_number_for_each_logit_is_refused(head):
    name, arguments = HEADS[head]
    loss = arguments['loss_cls'] | dict(reduction='none')
    with pytest.raises(ValueError, match=rf"reduction='none' would: write loss_cls=.*or go back to {name}$"):
        built(f'Fused{name}', arguments | dict(loss_cls=loss))


def test_a_head_of_another_make_that_would_copy_its_logits_is_told_so():
    class Cautious(ZeroCopyMixin, RetinaHead):
        def loss_by_feat_single(self, cls_score, *args, **kwargs):
            return super().loss_by_feat_single(cls_score.clamp(-10, 10), *args, **kwargs)

    init_default_scope('mmdet')
    head = Cautious(**ConfigDict(HEADS['retina'][1]))
    with pytest.raises(AttributeError, match=r'^clamp is not known .* Go back to the stock head'):
        losses_of(head, outputs(head, False))
