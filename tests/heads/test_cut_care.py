"""Heads that never hold their class logits: precision, what they refuse, and what they leave as it is."""

import copy
import pickle
import weakref
from collections import defaultdict

import pytest
import torch
from mmdet.models.dense_heads import RetinaHead
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils._pytree import tree_leaves

from focal_plugin.heads.zero_copy import ZeroCopyMixin
from focal_plugin.ops.cut import Cut
from tests.heads.cut import ALL, CHUNKS, SIX, features, head_of, loss_and_gradients, samples
from tests.heads.stock import CLASSES, HANDED, HEADS

CUT = CHUNKS['three classes']


def retina(**more):
    return head_of('FusedRetinaHead', HEADS['retina'][1], **dict(cut=CUT) | more)


def errors(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> dict[str, float]:
    """Of what the class convolution and the loss give, relative to the largest."""
    taken = [key for key in exact if key.startswith(('retina_cls', 'features'))]
    return {key: float((found[key] - exact[key]).abs().max() / exact[key].abs().max()) for key in taken}


def gradients_of(head, dtype=torch.float32, autocast=None, scaler=None, seed=1) -> dict[str, torch.Tensor]:
    maps = features(dtype, seed)
    with torch.autocast('cpu', dtype=autocast, enabled=autocast is not None):
        loss = sum(
            sum(tree_leaves(value)) for key, value in head.loss(maps, samples(head)).items() if key == 'loss_cls'
        )
    (loss if scaler is None else scaler.scale(loss)).backward()
    scale = 1.0 if scaler is None else scaler.get_scale()
    found = {key: p.grad for key, p in head.named_parameters() if p.grad is not None}
    return {
        key: grad / scale for key, grad in {**found, **{f'features {i}': x.grad for i, x in enumerate(maps)}}.items()
    }


def stock():
    return head_of('RetinaHead', HEADS['retina'][1] | dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)))


def test_gradients_are_as_exact_as_those_of_held_logits():
    """On the mean of five draws: the largest error of one is a matter of luck, a fifth more or less in either."""
    whole, parts = defaultdict(list), defaultdict(list)
    for seed in range(5):
        exact = gradients_of(stock().double(), torch.float64, seed=seed)
        for head, found in ((retina(cut=False), whole), (retina(), parts)):
            for key, error in errors(gradients_of(head, seed=seed), exact).items():
                found[key].append(error)
    for key, those in parts.items():
        assert max(those) <= 5e-6 and sum(those) <= 1.2 * sum(whole[key]), (key, those, whole[key])


def test_bfloat16_is_as_exact_as_stock_autocast():
    exact = gradients_of(stock().double(), torch.float64)
    theirs, ours = (errors(gradients_of(head, autocast=torch.bfloat16), exact) for head in (stock(), retina()))
    for key, error in ours.items():
        assert error <= 1.1 * theirs[key], (key, error, theirs[key])


def test_negatives_keep_their_gradients_in_float16():
    """At p = .0005 each is 4e-11 before the loss is scaled, and float16 ends at 6e-8."""

    def unsure(head):
        with torch.no_grad():
            head.retina_cls.weight.mul_(0.01)
            head.retina_cls.bias.fill_(-7.6)
        return head

    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**16)
    exact = gradients_of(unsure(stock()).double(), torch.float64)['retina_cls.bias']
    negatives = exact > 0  # biases that only background rows pull at
    assert negatives.sum() > 40 and exact[negatives].max() < 1e-8
    worst = []
    for head in (stock(), retina()):
        found = gradients_of(unsure(head), autocast=torch.float16, scaler=scaler)['retina_cls.bias']
        worst.append(float((found / exact - 1)[negatives].abs().max()))
    assert worst[1] <= worst[0] < 0.2


def test_features_that_want_no_gradient_and_weights_that_are_frozen():
    whole, parts = retina(cut=False), retina()
    for head in (whole, parts):
        head.retina_cls.weight.requires_grad_(False)
        head.cls_convs.requires_grad_(False)
    maps = [x.detach() for x in features()]
    want, got = (loss_and_gradients(head, maps)[1] for head in (whole, parts))
    assert got.keys() == want.keys() and 'retina_cls.bias' in got and 'retina_cls.weight' not in got
    torch.testing.assert_close(got['retina_cls.bias'], want['retina_cls.bias'], rtol=1e-5, atol=1e-7)


def test_without_gradients_only_the_loss_is_computed(monkeypatch):
    maps, head = features(), retina()
    monkeypatch.setattr(Cut, '_add', None)  # to the gradients
    with torch.no_grad():
        losses = head.loss(maps, samples(head))
    monkeypatch.undo()
    assert not losses['loss_cls'].requires_grad
    torch.testing.assert_close(losses['loss_cls'], loss_and_gradients(retina(cut=False), maps)[0]['loss_cls'])


@pytest.mark.parametrize('head', SIX)
def test_nothing_changes_outside_of_the_loss(head):
    """Outputs, and losses of outputs that somebody else has made, are the stock head's."""
    name, arguments = ALL[head]
    whole, parts = head_of(f'Fused{name}', arguments), head_of(f'Fused{name}', arguments, cut=True)
    maps = features()
    loss_and_gradients(parts, maps)
    for mode in (True, False):
        outputs = [tree_leaves(each.train(mode)(maps)) for each in (whole, parts)]
        for a, b in zip(*outputs, strict=True):
            assert torch.equal(a, b)
    assert '_conv_forward' not in vars(getattr(parts, parts.class_convolution))
    if head == 'condinst':  # which keeps its outputs until the masks' loss has picked from them
        parts.get_positive_infos()
    assert pickle.loads(pickle.dumps(parts)).state_dict().keys() == whole.state_dict().keys()
    copy.deepcopy(parts).load_state_dict(whole.state_dict())


@pytest.mark.parametrize('head', SIX)
@pytest.mark.parametrize('cut', (False, CUT), ids=('held', 'cut'))
def test_features_are_let_go_after_a_step(head, cut):
    name, arguments = ALL[head]
    head, seen = head_of(f'Fused{name}', arguments, cut=cut), []
    head.cls_convs[-1].register_forward_hook(lambda module, inputs, output: seen.append(weakref.ref(output)))
    loss_and_gradients(head, features())
    if hasattr(head, 'num_params'):  # CondInst's, whose masks' loss asks for these
        assert all(len(infos.scores) > 0 for infos in head.get_positive_infos())
    assert len(seen) > 1 and not any(each() is not None for each in seen)


def test_a_failed_loss_leaves_the_convolution_as_it_was():
    head, maps = retina(), features()
    wrong = samples(head)
    wrong[0].gt_instances.labels += 100
    with pytest.raises(ValueError, match=r'label 1\d\d is outside \[0, 7\]'):
        head.loss(maps, wrong)
    assert head(maps)[0][0].shape == (2, 9 * CLASSES, 16, 20)


@pytest.mark.parametrize('cut', CHUNKS.values(), ids=CHUNKS)
def test_a_score_that_is_rounded_to_just_above_1_is_1(cut, monkeypatch):
    """As the IoU of equal boxes may be; the native kernel finds it when it has begun to overwrite logits."""
    name, arguments = ALL['gfl']
    monkeypatch.setattr('mmdet.models.dense_heads.gfl_head.bbox_overlaps', lambda a, b, **_: torch.ones(len(a)) + 2e-7)
    whole, parts = (head_of(f'Fused{name}', arguments, cut=c) for c in (False, cut))
    (want, want_grads), (got, got_grads) = (loss_and_gradients(head, features()) for head in (whole, parts))
    torch.testing.assert_close(got['loss_cls'], want['loss_cls'], rtol=2e-6, atol=0)
    key = 'gfl_cls.weight'
    assert (got_grads[key] - want_grads[key]).abs().max() <= 5e-6 * want_grads[key].abs().max()
    monkeypatch.setattr('mmdet.models.dense_heads.gfl_head.bbox_overlaps', lambda a, b, **_: torch.ones(len(a)) + 0.1)
    with pytest.raises(ValueError, match=r'scores of labels are values in \[0, 1\], got values from 1.1 to 1.1'):
        parts.loss(features(), samples(parts))


def test_compiled_it_is_itself():
    head, maps = retina(), features()
    want = loss_and_gradients(head, maps)[0]
    got = torch.compile(head.loss, backend='eager')(maps, samples(head))
    for key, value in want.items():
        torch.testing.assert_close(sum(tree_leaves(got[key])), value)


class Low(nn.Module):
    """As an adapter wraps a layer."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias
        self.down, self.up = nn.Conv2d(32, 2, 3, padding=1), nn.Conv2d(2, layer.out_channels, 1)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def hooked(head):
    head.retina_cls.register_forward_hook(lambda module, given, found: found)


def adapted(head):
    head.retina_cls = Low(head.retina_cls)


def normalised_by_weight(head):
    torch.nn.utils.parametrizations.weight_norm(head.retina_cls)


def sharded(head):
    head.retina_cls.weight.data = torch.empty(0)


BEFORE = {
    'a hook': (hooked, 'has hooks'),
    'LoRA': (adapted, 'got Low: write cut=False'),
    'a weight that is computed': (normalised_by_weight, 'got ParametrizedConv2d: write cut=False'),
    'a weight that is elsewhere': (sharded, r'must be whole, got a Parameter of shape \(0,\)'),
}


@pytest.mark.parametrize(('change', 'message'), BEFORE.values(), ids=BEFORE)
def test_convolutions_that_would_be_passed_by_are_refused(change, message):
    head = retina()
    change(head)
    with pytest.raises(TypeError, match=message):
        head.loss(features(), samples(head))


def test_heads_and_losses_that_need_whole_rows_are_refused():
    name, arguments = ALL['retina']
    soft = arguments | dict(loss_cls=dict(type='FusedSoftmaxFocalLoss', use_sigmoid=False))
    with pytest.raises(TypeError, match='FusedSoftmaxFocalLoss needs all of a row: choose a sigmoid loss'):
        head_of(f'Fused{name}', soft, cut=True)
    name, arguments = ALL['vfnet']
    head = head_of(f'Fused{name}', arguments | dict(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True)), cut=True)
    with pytest.raises(ValueError, match=r'takes labels, or \(labels, scores\), got a target of shape'):
        head.loss(features(), samples(head))


REASONS = {'rtmdet': 'it divides the loss of each level', 'tood': 'its class scores', 'ddod': 'it weights the loss'}


@pytest.mark.parametrize('head', SIX)
def test_proposals_are_refused(head):
    """A dense head that takes an RPN's place makes them of the class logits of its loss."""
    cut = head_of(f'Fused{ALL[head][0]}', ALL[head][1], cut=True)
    with pytest.raises(TypeError, match='no class logits to make proposals of: write cut=False'):
        cut.loss_and_predict(features(), samples(cut))


@pytest.mark.parametrize('head', HANDED)
def test_heads_that_can_not_be_cut_say_why(head):
    name, arguments = HEADS[head]
    reason = next(reason for kind, reason in REASONS.items() if head.startswith(kind))
    with pytest.raises(TypeError, match=rf'^Fused{name} takes no cut=True, because {reason}.*: write cut=False$'):
        head_of(f'Fused{name}', arguments, cut=True)


@pytest.mark.parametrize('cut', (0, -1, float('nan'), float('inf')))
def test_a_size_that_is_none(cut):
    with pytest.raises(ValueError, match=f'cut must be a positive, finite number of MiB, got {cut}'):
        retina(cut=cut)


@pytest.mark.parametrize('cut', ('large', None))
def test_a_size_that_is_no_number(cut):
    with pytest.raises(TypeError, match=f'cut must be a number of MiB, got {cut!r}'):
        retina(cut=cut)


def test_what_a_backward_can_not_do():
    head, maps = retina(), features()
    loss = head.loss(maps, samples(head))['loss_cls']
    with pytest.raises(RuntimeError, match='no logits to differentiate twice'):
        torch.autograd.grad(loss, maps, create_graph=True)
    loss = head.loss(maps, samples(head))['loss_cls']
    with pytest.raises(RuntimeError, match='no logits to differentiate twice, or by a batch of gradients'):
        torch.autograd.grad(loss, maps, torch.ones(2), is_grads_batched=True)
    loss = head.loss(maps, samples(head))['loss_cls']
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='a second backward through the loss of a head with cut=True'):
        loss.backward()
    with pytest.raises(RuntimeError, match='nothing for torch'):
        torch.func.grad(lambda *x: head.loss(x, samples(head))['loss_cls'])(*maps)
    head.loss_cls.alpha = nn.Parameter(torch.rand(CLASSES))
    with pytest.raises(ValueError, match='gives no gradients of targets, weights, avg_factor or numbers per class'):
        head.loss(maps, samples(head))


def test_a_head_that_does_more_with_a_level_s_loss_is_told_so():
    class Scaled(ZeroCopyMixin, RetinaHead):
        class_convolution = 'retina_cls'

        def loss_by_feat_single(self, *args, **kwargs):
            loss_cls, loss_bbox = super().loss_by_feat_single(*args, **kwargs)
            return loss_cls * 0.5, loss_bbox

    init_default_scope('mmdet')
    head = Scaled(**ConfigDict(HEADS['retina'][1]), cut=True)
    with pytest.raises(TypeError, match=r'__mul__ is not known of the loss of one level of a head with cut=True'):
        head.loss(features(), samples(head))


def test_a_head_that_names_no_class_convolution():
    class Nameless(ZeroCopyMixin, RetinaHead):
        pass

    init_default_scope('mmdet')
    with pytest.raises(TypeError, match='Nameless does not say which of its modules is its class_convolution'):
        Nameless(**ConfigDict(HEADS['retina'][1]), cut=True)
