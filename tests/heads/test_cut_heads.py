"""Heads that never hold their class logits against the same heads that do."""

import pytest
import torch
from torch import nn

from focal_plugin import backend
from focal_plugin.compatibility import autocast_dtype, without_autocast
from focal_plugin.cut import recording
from tests.allocations import Largest, allocations
from tests.heads.cut import ALL, CHUNKS, MIB, NORMED, PLACES, SIX, features, head_of, loss_and_gradients
from tests.heads.stock import BOXES, CLASSES, HEADS, NO_BOXES, PAIRS, with_loss


def compare(name: str, arguments: dict, cut: float, boxes=BOXES, **more) -> None:
    """The head's losses and gradients are those of the head that holds its logits."""
    whole, parts = (head_of(f'Fused{name}', arguments, cut=c, **more) for c in (False, cut))
    assert {k: v.shape for k, v in whole.state_dict().items()} == {k: v.shape for k, v in parts.state_dict().items()}
    want, want_grads = loss_and_gradients(whole, features(), boxes)
    got, got_grads = loss_and_gradients(parts, features(), boxes)
    assert got.keys() == want.keys() and got_grads.keys() == want_grads.keys()
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, rtol=2e-6, atol=1e-8)
    for key, grad in want_grads.items():
        assert (got_grads[key] - grad).abs().max() <= 5e-6 * grad.abs().max() + 1e-12, key
    if hasattr(whole.loss_cls, 'gradients'):
        torch.testing.assert_close(parts.loss_cls.gradients, whole.loss_cls.gradients, rtol=1e-5, atol=1e-9)
        assert whole.loss_cls.gradients.sum(1).min() > 0


@pytest.mark.parametrize('cut', CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize(('name', 'arguments'), ALL.values(), ids=ALL)
def test_losses_and_gradients_are_those_of_held_logits(name, arguments, cut):
    compare(name, arguments, cut)


@pytest.mark.parametrize('head', SIX)
def test_images_without_objects(head):
    compare(*ALL[head], CHUNKS['three classes'], NO_BOXES)


SIGMOID = [pair for pair in PAIRS if pair[1] != 'FusedSoftmaxFocalLoss']


@pytest.mark.sampled(24)
@pytest.mark.parametrize(
    ('head', 'loss'), [*SIGMOID, *(('condinst', loss) for head, loss in SIGMOID if head == 'fcos')]
)
def test_every_loss_that_a_head_can_take(head, loss):
    name, arguments = with_loss('fcos' if head == 'condinst' else head, loss)
    name, arguments = (ALL['condinst'][0], arguments | dict(num_params=8)) if head == 'condinst' else (name, arguments)
    compare(name, arguments, CHUNKS['three classes'])


@pytest.mark.parametrize('head', ('fcos', 'condinst'))
def test_a_normalised_convolution(head):
    """As V3Det's: its weight is another tensor, and the same, at every level."""
    compare(*ALL[head], CHUNKS['three classes'], **NORMED)


OF_LABELS = {
    'ignored rows': dict(ignore_index=CLASSES - 1),
    'weighted classes': dict(class_weight=[1.0 + c for c in range(CLASSES + 1)]),
}


@pytest.mark.parametrize('given', OF_LABELS.values(), ids=OF_LABELS)
@pytest.mark.parametrize('head', ('retina', 'fcos'))
def test_what_rows_of_some_label_are_given(head, given):
    name, arguments = ALL[head]
    for cut in CHUNKS.values():
        compare(name, arguments | dict(loss_cls=arguments['loss_cls'] | given), cut)


MANY = 307
"""Classes, so that a chunk is larger than anything else that a head makes."""
MORE = 1021
"""The same for VFNet, whose deformable convolutions lay their features out."""


@pytest.mark.sampled(16)
@pytest.mark.skipif(not backend.HAS_NATIVE, reason='the native kernel was not built')
@pytest.mark.parametrize(('head', 'loss'), [*SIGMOID, ('condinst', 'FusedFocalLoss')])
def test_nothing_larger_than_a_chunk_is_made(head, loss):
    classes = MORE if head == 'vfnet' else MANY
    name, arguments = ALL['condinst'] if head == 'condinst' else with_loss(head, loss, classes)
    cut = 2 * classes * PLACES * 4 / MIB / 2.7
    head = head_of(f'Fused{name}', arguments | dict(num_classes=classes), cut=cut)
    maps = features()
    convolution = getattr(head, head.class_convolution)
    parts = {tensor.numel() * 4 for tensor in (convolution.weight, *maps)}

    def step():
        head.zero_grad()
        loss_and_gradients(head, maps)

    step()  # what is cached, the anchors for one, is made here
    with Largest([convolution.weight, *maps]) as seen:
        step()
    assert 0.4 * cut * MIB <= seen.most <= 0.5 * cut * MIB, seen.of
    assert 0.4 * cut * MIB <= max(size for size in allocations(step) if size not in parts) <= 0.5 * cut * MIB


def test_held_logits_are_larger_than_a_chunk():
    """So the counting sees what it is there for."""
    name, arguments = HEADS['fcos']
    head, maps = head_of(f'Fused{name}', arguments | dict(num_classes=MANY)), features()
    with Largest([head.conv_cls.weight, *maps]) as seen:
        loss_and_gradients(head, maps)
    assert seen.most == MANY * PLACES * 4


def test_rows_that_are_picked_take_no_more_memory_than_a_chunk():
    """What is around a row is larger than its logits."""
    convolution, maps, size = nn.Conv2d(32, 3 * CLASSES, 3, padding=1), features()[0], 2**18
    places = [each.flatten() for each in torch.meshgrid(*map(torch.arange, (2, *maps.shape[2:], 3)), indexing='ij')]
    with recording(convolution, size, scored=False) as cut, torch.no_grad():
        convolution(maps)
        with Largest([]) as seen:
            rows = cut.rows(0, CLASSES, tuple(places))
    logits = convolution(maps).unflatten(1, (3, CLASSES)).permute(0, 3, 4, 1, 2).reshape(-1, CLASSES)
    torch.testing.assert_close(rows, logits)
    assert seen.most <= size < places[0].numel() * 32 * 9 * 4


def test_a_device_that_knows_no_autocast():
    assert autocast_dtype(torch.device('meta')) is None
    with without_autocast(torch.device('meta')):
        assert torch.zeros(2, device='meta').is_meta
