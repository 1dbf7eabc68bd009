"""FusedFocalLoss as mmdet's heads use it, beside mmdet's FocalLoss."""

import inspect
import re

import numpy
import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS

from focal_plugin import functional
from focal_plugin.losses import CLASSES, FusedFocalLoss
from focal_plugin.math import SPECS
from focal_plugin.math.spec import REQUIRED
from tests.variants import VARIANTS

N, C = 33, 7


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(N, C, generator=generator)
    return pred, torch.randint(0, C + 1, (N,), generator=generator), torch.rand(N, generator=generator)


def both(config, pred, *args, **kwargs):
    """(loss, gradient) of mmdet's class and of ours."""
    results = []
    for kind in ('FocalLoss', 'FusedFocalLoss'):
        leaf = pred.clone().requires_grad_()
        loss = MODELS.build(dict(type=kind, **config))(leaf, *args, **kwargs)
        loss.sum().backward()
        results.append((loss.detach(), leaf.grad))
    return results


CALLS = {
    'RetinaNet: labels, weights, avg_factor': lambda p, t, w: (p, t, w, dict(avg_factor=9.0)),
    'FCOS: no weight': lambda p, t, w: (p, t, None, dict(avg_factor=9.0)),
    'SOLO: an int64 avg_factor': lambda p, t, w: (p, t, None, dict(avg_factor=torch.tensor(9))),
    'DETR: avg_factor of shape (1,)': lambda p, t, w: (p, t, w, dict(avg_factor=torch.tensor([9.0]))),
    'Sparse R-CNN: avg_factor 0': lambda p, t, w: (p, t, w, dict(avg_factor=0)),
    'PAA: none with avg_factor': lambda p, t, w: (p, t, w, dict(avg_factor=9.0, reduction_override='none')),
    'sum': lambda p, t, w: (p, t, w, dict(reduction_override='sum')),
    'FSAF: flat weights': lambda p, t, w: (p, t, w[:, None].expand(N, C).reshape(-1), dict(avg_factor=9.0)),
    'no background': lambda p, t, w: (p, t.clamp(max=C - 1), w, {}),
    'all background': lambda p, t, w: (p, torch.full_like(t, C), w, {}),
    'GLIP: one dimension': lambda p, t, w: (p[:, 0], (t == 0).float(), w, {}),
    'MaskFormer: one class, 1 is background': lambda p, t, w: (p[:, :1], (t > 3).long(), None, dict(avg_factor=9.0)),
    'a one-hot of four dimensions': lambda p, t, w: (p.view(1, 3, 11, C), (p > 0).float().view(1, 3, 11, C), None, {}),
}


@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS)
def test_calls_of_heads_equal_mmdet(call):
    pred, target, weight, kwargs = call(*inputs())
    for config in (dict(), dict(gamma=1.5, alpha=0.4, loss_weight=2.5)):
        (theirs, their_grad), (ours, our_grad) = both(config, pred, target, weight, **kwargs)
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-7)
        torch.testing.assert_close(
            our_grad, their_grad, rtol=2e-5, atol=1e-7 * float(their_grad.abs().max().clamp(min=1))
        )


def test_probabilities_equal_mmdet():
    pred, target, weight = inputs()
    (theirs, their_grad), (ours, our_grad) = both(dict(activated=True), pred.sigmoid(), target, weight, avg_factor=9.0)
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=0)
    torch.testing.assert_close(our_grad, their_grad, rtol=2e-5, atol=1e-7)


def test_yolo_layout_that_fails_in_mmdet():
    """YOLO's (B, A, C) one-hots with weights (B, A, 1): mmdet's class refuses them."""
    pred, target, weight = inputs()
    one_hot = torch.nn.functional.one_hot(target, C + 1)[:, :C].view(3, 11, C)
    ours = FusedFocalLoss()(pred.view(3, 11, C), one_hot, weight.view(3, 11, 1))
    torch.testing.assert_close(ours, FusedFocalLoss()(pred, target, weight))
    with pytest.raises(Exception):  # noqa: B017  whatever mmdet raises
        FocalLoss()(pred.view(3, 11, C), one_hot, weight.view(3, 11, 1))


def test_constructor_is_that_of_mmdet():
    """What mmdet's does not have is named by the caller: an order of its own may not come in between."""
    ours, theirs = (inspect.signature(kind).parameters for kind in (FusedFocalLoss, FocalLoss))
    by_position = [p for p in ours.values() if p.kind is not p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in by_position] == [(p.name, p.default) for p in theirs.values()]
    assert ours.keys() - theirs.keys() == {'ignore_index', 'class_weight'}
    ours, theirs = (inspect.signature(kind.forward).parameters for kind in (FusedFocalLoss, FocalLoss))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
    assert issubclass(FusedFocalLoss, FocalLoss)


def test_every_variant_has_a_function_and_a_class():
    assert SPECS.keys() == functional.FUNCTIONS.keys() == CLASSES.keys() == VARIANTS.keys()
    for name, kind in CLASSES.items():
        assert kind.spec is SPECS[name] and kind.__name__ == VARIANTS[name].kind
        assert MODELS.get(kind.__name__) is kind
        assert getattr(functional, SPECS[name].function) is functional.FUNCTIONS[name]


@pytest.mark.parametrize('spec', SPECS.values(), ids=SPECS)
def test_defaults_are_written_once(spec):
    """The signatures take their defaults from math/; the docstrings name the same."""
    function, kind = functional.FUNCTIONS[spec.name], CLASSES[spec.name]
    accepted, constructor = inspect.signature(function).parameters, inspect.signature(kind).parameters
    named = inspect.getdoc(kind)
    for name, default in spec.defaults.items():
        assert accepted[name].default == default and accepted[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert re.search(rf'^    {name}: \w', inspect.getdoc(function), re.MULTILINE)
        if name in kind.withheld:
            assert name not in constructor
            continue
        assert constructor[name].default == default
        entry = re.search(rf'^    {name} \(.*?(?=^    \w|^\w)', named, re.MULTILINE | re.DOTALL).group()
        assert (f'Defaults to {default!r}.' in ' '.join(entry.split())) == (default is not REQUIRED)
    assert constructor['use_sigmoid'].default is (spec.family == 'elementwise')
    assert (constructor['reduction'].default, constructor['loss_weight'].default) == ('mean', 1.0)
    for documented in (function, kind):
        text = ' '.join(inspect.getdoc(documented).split())
        assert f'arXiv {spec.paper}' in text
        assert ' '.join(spec.formula.split()) in text


def built(name, **config):
    return MODELS.build(dict(type=VARIANTS[name].kind) | VARIANTS[name].required_by_class(C) | config)


@pytest.mark.parametrize('name', SPECS)
def test_classes_give_what_the_functions_give(name):
    """loss_weight, reduction_override and avg_factor in, in the target form of heads."""
    spec, (pred, target, weight) = SPECS[name], inputs()
    if spec.family == 'rowwise':
        target = target.clamp(max=C - 1)
    if spec.form == 'scored':
        target = target, torch.rand(N)
    elif spec.form == 'dense':
        target = torch.nn.functional.one_hot(target, C + 1)[:, :C].float()
    loss, parameters = built(name, loss_weight=2.5), VARIANTS[name].required(C)
    if spec.probabilities == 'from_logits':
        pred = pred.sigmoid()
    for reduction in ('none', 'mean', 'sum'):
        arguments = {} if reduction == 'sum' else {'avg_factor': 7.0}
        ours = loss(pred, target, weight=weight, reduction_override=reduction, **arguments)
        plain = functional.FUNCTIONS[name](pred, target, weight, reduction=reduction, **arguments, **parameters)
        torch.testing.assert_close(ours, 2.5 * plain)


@pytest.mark.parametrize('name', SPECS)
def test_inherited_and_unknown_arguments(name):
    """What another variant knows is warned about once; a slip is an error that names what was meant, of the class's own."""
    kind = CLASSES[name]
    known = {key for spec in SPECS.values() for key in spec.defaults}
    foreign = sorted(known - inspect.signature(kind).parameters.keys())[0]
    with pytest.warns(UserWarning, match=rf'{kind.__name__} does not use {foreign}=1.5.*no effect') as caught:
        loss = built(name, **{foreign: 1.5})
    assert len(caught) == 1
    assert loss.ignored_arguments == {foreign: 1.5}
    for own in set(SPECS[name].defaults) - set(kind.withheld) - {'k'}:  # of one letter no slip can be told
        with pytest.raises(TypeError, match=f"did you mean '{own}'"):
            built(name, **{own.replace('a', 'aa', 1) if 'a' in own else own + own[-1]: 2.0})
    with pytest.raises(TypeError, match=r'it has use_sigmoid, .*reduction, '):
        built(name, zzz=2.0)
    own = next(key for key, default in SPECS[name].defaults.items() if isinstance(default, float))
    assert built(name, **{own: 0.5}).given_arguments.items() >= {own: 0.5}.items()


def test_lists_are_buffers_that_checkpoints_do_not_hold():
    loss = FusedFocalLoss(gamma=[2.0] * C, alpha=[0.25] * C)
    assert {name for name, _ in loss.named_buffers()} == {'gamma', 'alpha'}
    assert loss.state_dict() == {}
    pred, target, weight = inputs()
    torch.testing.assert_close(loss(pred, target, weight), FusedFocalLoss()(pred, target, weight))


@pytest.mark.parametrize(
    'arguments, message',
    (
        (dict(use_sigmoid=False), 'use_sigmoid=True'),
        (dict(gamma=-1.0), 'gamma must be at least 0, got -1.0'),
        (dict(alpha=2.0), r'alpha must be in \[0, 1\], got 2.0'),
        (dict(reduction='avg'), "got 'avg'"),
        (dict(reduction=numpy.array(['mean', 'sum'])), 'reduction must be one of'),
        (dict(loss_weight=float('nan')), 'loss_weight must be a finite number, got nan'),
        (dict(loss_weight=float('-inf')), 'loss_weight must be a finite number, got -inf'),
        (dict(loss_weight=10**400), 'loss_weight must be a number that a float can hold'),
        (dict(activated=2), 'activated must be True or False, got 2'),
        (dict(activated=None), 'activated must be True or False, got None'),
        (dict(activated='yes'), "activated must be True or False, got 'yes'"),
    ),
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FusedFocalLoss(**arguments)


@pytest.mark.parametrize('value', (True, '1', None, [1.0], torch.ones(1)), ids=repr)
def test_loss_weight_is_a_number(value):
    with pytest.raises(TypeError, match='loss_weight must be a number, got'):
        FusedFocalLoss(loss_weight=value)


@pytest.mark.parametrize('value', (2, numpy.float16(2), numpy.int64(2)), ids=repr)
def test_numbers_of_other_kinds_become_floats(value):
    loss = FusedFocalLoss(loss_weight=value)
    assert type(loss.loss_weight) is float and loss.loss_weight == 2.0


@pytest.mark.parametrize('name', [name for name, spec in SPECS.items() if spec.probabilities])
def test_flags_are_bools(name):
    flag = SPECS[name].probabilities
    for value in (1, numpy.True_, True):
        assert getattr(built(name, **{flag: value}), flag) is True
    with pytest.raises(ValueError, match=f'{flag} must be True or False, got 2'):
        built(name, **{flag: 2})


def test_an_argument_given_twice():
    with pytest.raises(TypeError, match='got gamma twice'):
        FusedFocalLoss(True, 2.0, gamma=1.0)


def test_a_list_of_another_length():
    pred, target, _ = inputs()
    with pytest.raises(ValueError, match='3 values of gamma or alpha for logits of 7 classes'):
        FusedFocalLoss(alpha=[0.1, 0.2, 0.3])(pred, target)


def test_bad_reduction_override():
    pred, target, _ = inputs()
    with pytest.raises(ValueError, match=r"reduction_override .*'avg'"):
        FusedFocalLoss()(pred, target, reduction_override='avg')
    with pytest.raises(ValueError, match='reduction_override must be None or one of'):
        FusedFocalLoss()(pred, target, reduction_override=numpy.array(['mean', 'sum']))
    with pytest.raises(AssertionError):  # what mmdet's class raises, and its tests expect
        FusedFocalLoss()(pred, target, reduction_override=True)


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
def test_autocast_hands_over_halves(dtype):
    """AMP: the head's convolution gives half logits; the loss takes them and gives a float32 loss."""
    layer, (pred, target, weight) = torch.nn.Linear(C, C), inputs()
    with torch.autocast('cpu', dtype=dtype):
        logits = layer(pred)
        assert logits.dtype == dtype
        loss = FusedFocalLoss()(logits, target, weight, avg_factor=3.0)
    assert loss.dtype == torch.float32
    (loss * 1024).backward()
    exact = FusedFocalLoss()(logits.float(), target, weight, avg_factor=3.0)
    torch.testing.assert_close(loss, exact, rtol=1e-5, atol=0)
    assert layer.weight.grad.isfinite().all()
