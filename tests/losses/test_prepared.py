"""A call like two before goes to the kernel without its checks: the same bits, and the same errors, as with them."""

import pytest
import torch
import torch.nn.functional as F

import focal_plugin
from focal_plugin import backend, functional
from focal_plugin.losses import FusedFocalLoss
from focal_plugin.math import SPECS
from focal_plugin.ops import prepared
from tests.losses.built import C, N, built
from tests.variants import VARIANTS

pytestmark = pytest.mark.skipif(not backend.HAS_NATIVE, reason='the native kernel was not built')
PER_CLASS = ('equalized_focal', 'class_balanced_focal')  # whose vectors are made anew for each call
AVERAGES = (None, 7, 7.5)


@pytest.fixture(autouse=True)
def forgetful():
    """Nothing is known of earlier tests' calls."""
    prepared._known.clear()
    with focal_plugin.use_backend('auto'):
        yield
    prepared._known.clear()


def seen(loss, pred, *arguments, **given):
    leaf = pred.detach().requires_grad_()
    value = loss(leaf, *arguments, **given)
    return value.detach(), *torch.autograd.grad(value, leaf)


def targets(name, seed):
    """Of each kind that the loss takes."""
    generator, spec = torch.Generator().manual_seed(seed), SPECS[name]
    labels = torch.randint(0, C + (spec.family == 'elementwise'), (N,), generator=generator)
    scores = torch.rand(N, generator=generator)
    found = {'labels': labels}
    if spec.scored:
        found['scored'] = labels, scores
    if VARIANTS[name].dense:
        found['dense'] = F.one_hot(labels, C + 1)[:, :C] * scores[:, None]
    return found


def weights(name, seed):
    rows = torch.rand(N, generator=torch.Generator().manual_seed(seed))
    found = {'none': None, 'rows': rows, 'column': rows[:, None]}
    if SPECS[name].family == 'elementwise':
        found['elements'] = torch.rand(N, C, generator=torch.Generator().manual_seed(seed))
    return found


def is_prepared(name, loss):
    """Whether calls of a class are prepared."""
    return not (loss.takes_probabilities or name in PER_CLASS)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', SPECS)
def test_a_prepared_call_of_every_loss_has_the_bits_of_a_first(name, dtype):
    loss = built(name)
    for kind in targets(name, 0):
        for weighted in weights(name, 0):
            for average in AVERAGES:
                found = []
                for forgets in (True, False):
                    prepared._known.clear()
                    for seed in (0, 1, 2):
                        if forgets:
                            prepared._known.clear()
                        pred = torch.randn(N, C, generator=torch.Generator().manual_seed(seed)).to(dtype)
                        if loss.takes_probabilities:
                            pred = pred.sigmoid()
                        weight = weights(name, seed)[weighted]
                        last = seen(loss, pred, targets(name, seed)[kind], weight=weight, avg_factor=average)
                    found.append(last)
                    assert any(prepared._known.values()) == (is_prepared(name, loss) and not forgets)
                assert all(map(torch.equal, *found)), (kind, weighted, average)


def test_scores_that_are_made_of_labels_are_those_of_each_call():
    loss = built('position_supervised', normalize='batch')
    for kind in targets('position_supervised', 0):
        prepared._known.clear()
        for seed in range(4):
            pred, target = torch.randn(N, C), targets('position_supervised', seed)[kind]
            value, _ = seen(loss, pred, target, avg_factor=7.0)
            expected = functional.position_supervised_loss(pred, target, normalize='batch', reduction='sum') / 7
            torch.testing.assert_close(value, expected)
        assert not any(prepared._known.values())  # one would read the scores of the call for which it was prepared


def inputs(seed=0, rows=N):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(rows, C, generator=generator)
    return pred, torch.randint(0, C + 1, (rows,), generator=generator), torch.rand(rows, generator=generator)


CHANGES = {
    'gamma': lambda loss: setattr(loss, 'gamma', 1.5),
    'alpha': lambda loss: setattr(loss, 'alpha', None),
    'loss_weight': lambda loss: setattr(loss, 'loss_weight', 3.0),
    'reduction': lambda loss: setattr(loss, 'reduction', 'sum'),
    'ignore_index': lambda loss: setattr(loss, 'ignore_index', 2),
    'activated': lambda loss: setattr(loss, 'activated', True),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_what_is_changed_in_a_loss_counts_in_its_next_call(change):
    pred, labels, weight = inputs()
    pred, loss = pred.sigmoid(), FusedFocalLoss()
    before = [seen(loss, pred, labels, weight) for _ in range(3)][-1]
    change(loss)
    after = seen(loss, pred, labels, weight)
    prepared._known.clear()
    assert all(map(torch.equal, after, seen(loss, pred, labels, weight)))
    assert not torch.equal(before[0], after[0])


LAID_OUT = {
    'other strides': lambda pred, labels, weight: (pred.t().contiguous().t(), labels, weight),
    'labels of another stride': lambda pred, labels, weight: (pred, labels.repeat_interleave(2)[::2], weight),
    'a weight of one stride': lambda pred, labels, weight: (pred, labels, weight[:1].expand(N)),
    'int32 labels': lambda pred, labels, weight: (pred, labels.int(), weight),
    'a double weight': lambda pred, labels, weight: (pred, labels, weight.double()),
    'a lazy negative': lambda pred, labels, weight: (torch._neg_view(pred), labels, weight),
    'one-hot': lambda pred, labels, weight: (pred, F.one_hot(labels, C + 1)[:, :C], weight),
    'other rows': lambda pred, labels, weight: (pred[1:], labels[1:], weight[1:]),
}


@pytest.mark.parametrize('laid', LAID_OUT.values(), ids=LAID_OUT)
def test_what_lies_otherwise_is_no_call_like_the_one_before(laid):
    loss = FusedFocalLoss()
    for _ in range(3):
        seen(loss, *inputs())
    others = laid(*inputs(1))
    leaf = others[0].detach().requires_grad_()
    got = [torch.autograd.grad(loss(leaf, *others[1:]), leaf)[0] for _ in range(3)]
    with focal_plugin.use_backend('torch'):
        (want,) = torch.autograd.grad(loss(leaf, *others[1:]), leaf)
    for each in got:
        torch.testing.assert_close(each, want, rtol=1e-5, atol=1e-9)


def test_weights_of_classes_are_those_of_each_calls_labels():
    loss, operands = FusedFocalLoss(class_weight=[1.0, 2.0, 3.0, 4.0, 5.0]), inputs(1)
    for weighted in (1, 0):
        for _ in range(3):
            seen(loss, *inputs()[: 2 + weighted])
        got = seen(loss, *operands[: 2 + weighted])
        prepared._known.clear()
        assert all(map(torch.equal, got, seen(loss, *operands[: 2 + weighted])))


def test_a_gradient_of_the_weight_is_given():
    pred, labels, weight = inputs()
    loss = FusedFocalLoss()
    for _ in range(3):
        seen(loss, pred, labels, weight)
    leaf, weight = pred.clone().requires_grad_(), weight.requires_grad_()
    loss(leaf, labels, weight).backward()
    assert weight.grad.abs().sum() > 0


def test_a_forced_backend_serves():
    loss, operands = FusedFocalLoss(), inputs()
    native = [seen(loss, *operands) for _ in range(3)][-1]
    with focal_plugin.use_backend('torch'):
        composed = seen(loss, *operands)
    with focal_plugin.use_backend('native'):
        assert all(map(torch.equal, native, seen(loss, *operands)))
    assert not torch.equal(native[1], composed[1])  # in float64, and rounded


def test_labels_and_targets_are_looked_at_again():
    pred, labels, weight = inputs()
    loss, dense = FusedFocalLoss(), F.one_hot(labels, C + 1)[:, :C].float()
    for _ in range(3):
        seen(loss, pred, labels, weight)
        seen(loss, pred, dense)
    with pytest.raises(ValueError, match=f'label {C + 4} is outside'):
        seen(loss, pred, labels + 4, weight)
    with pytest.raises(ValueError, match='values in'):
        seen(loss, pred, 2 * dense)
    # Rounded to just above 1, it counts as 1.
    assert all(map(torch.equal, seen(loss, pred, dense * (1 + 2**-23)), seen(loss, pred, dense)))


def test_a_second_backward_and_a_second_derivative_are_as_before():
    pred, labels, weight = inputs()
    loss = FusedFocalLoss()
    results = []
    for _ in range(3):
        leaf = pred.clone().requires_grad_()
        value = loss(leaf, labels, weight)
        first = torch.autograd.grad(value, leaf, retain_graph=True)
        second = torch.autograd.grad(value, leaf, torch.tensor(3.0), retain_graph=True)
        (grad,) = torch.autograd.grad(value, leaf, create_graph=True)
        results.append((*first, *second, *torch.autograd.grad(grad.square().sum(), leaf)))
    assert all(map(torch.equal, results[0], results[2]))


def test_wrong_arguments_are_refused_as_before():
    pred, labels, weight = inputs()
    loss = FusedFocalLoss()
    for _ in range(3):
        seen(loss, pred, labels, weight, 7.0)
    with pytest.raises(TypeError, match='avg_factor'):
        seen(loss, pred, labels, weight, 'seven')
    with pytest.raises(TypeError, match='avg_factor'):
        seen(loss, pred, labels, weight, True)
    with pytest.raises(ValueError, match='avg_factor'):
        seen(loss, pred, labels, weight, 7.0, 'sum')


def test_not_more_is_remembered_than_a_few_hundred_calls():
    loss = FusedFocalLoss()
    for rows in range(1, prepared.MOST + 20):
        for _ in range(2):
            seen(loss, *inputs(rows=rows))
    assert 0 < len(prepared._known) <= prepared.MOST
