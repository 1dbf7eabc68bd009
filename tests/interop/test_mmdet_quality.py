"""mmdet's other focal functions (quality, varifocal, Gaussian) under their own signatures, against the installed mmdet's."""

import inspect

import pytest
import torch
from mmdet.models.losses import gaussian_focal_loss as gaussian_peer
from mmdet.models.losses import gfocal_loss as quality_peer
from mmdet.models.losses import varifocal_loss as varifocal_peer

from focal_plugin.interop import mmdet as ours
from tests.interop.mmdet_calls import CLASSES, ROWS, labelled, random, same
from tests.interop.peers import signature

DECORATED = {
    'quality_focal_loss': quality_peer,
    'quality_focal_loss_tensor_target': quality_peer,
    'quality_focal_loss_with_prob': quality_peer,
    'gaussian_focal_loss': gaussian_peer,
}
PLAIN = {'varifocal_loss': varifocal_peer, 'gaussian_focal_loss_with_pos_inds': gaussian_peer}


@pytest.mark.parametrize('name', PLAIN)
def test_signatures(name):
    assert signature(getattr(ours, name)) == signature(getattr(PLAIN[name], name))


@pytest.mark.parametrize('name', DECORATED)
def test_signatures_with_what_weighted_loss_adds(name):
    """Its wrapper takes pred, target, weight, reduction, avg_factor, and the function's own by keyword."""
    theirs = getattr(DECORATED[name], name)
    wrapper = inspect.signature(theirs, follow_wrapped=False).parameters.values()
    own = list(inspect.signature(theirs).parameters.values())[2:]
    mine = inspect.signature(getattr(ours, name)).parameters.values()
    positional = [p for p in wrapper if p.kind is not p.VAR_KEYWORD]
    assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in [*positional, *own]]
    assert [p.kind for p in mine] == [p.kind for p in positional] + [inspect.Parameter.KEYWORD_ONLY] * len(own)


ROW_CALLS = {
    'defaults': {},
    'a weight per row': {'weight': random(ROWS)},
    'avg_factor': {'weight': random(ROWS), 'avg_factor': 7},
    'avg_factor 0: a batch without positives': {'avg_factor': 0.0},
    'sum': {'reduction': 'sum', 'weight': random(ROWS)},
    'none': {'reduction': 'none', 'weight': random(ROWS)},
    'another beta': {'beta': 1.5},
    'beta 1': {'beta': 1.0},
}


@pytest.fixture(params=ROW_CALLS.values(), ids=ROW_CALLS.keys())
def row_call(request):
    return request.param


@pytest.fixture
def scored():
    """Logits, the pair of labels and qualities, and the same as dense values."""
    x, labels, one_hot = labelled()
    scores = 0.05 + 0.9 * random(ROWS)
    return x, (labels, scores), one_hot * scores[:, None]


def test_quality_focal(scored, row_call):
    x, pair, _ = scored
    same(ours.quality_focal_loss, quality_peer.quality_focal_loss, x, pair, pair, **row_call)


def test_quality_focal_of_dense_targets(scored, row_call):
    x, _, dense = scored
    peer_function = quality_peer.quality_focal_loss_tensor_target
    same(ours.quality_focal_loss_tensor_target, peer_function, x, dense, dense, **row_call)


def test_quality_focal_of_dense_targets_and_probabilities(scored, row_call):
    x, _, dense = scored
    peer_function = quality_peer.quality_focal_loss_tensor_target
    same(ours.quality_focal_loss_tensor_target, peer_function, x.sigmoid(), dense, dense, activated=True, **row_call)


def test_quality_focal_of_probabilities(scored, row_call):
    x, pair, _ = scored
    peer_function = quality_peer.quality_focal_loss_with_prob
    same(ours.quality_focal_loss_with_prob, peer_function, x.sigmoid(), pair, pair, **row_call)


VARIFOCAL_CALLS = {
    'defaults': {},
    'a column of weights': {'weight': random(ROWS, 1)},
    'a weight per logit': {'weight': random(ROWS, CLASSES), 'avg_factor': 7},
    'sum': {'reduction': 'sum'},
    'none': {'reduction': 'none', 'weight': random(ROWS, 1)},
    'other parameters': {'alpha': 0.4, 'gamma': 1.5},
    'alpha above 1': {'alpha': 1.5},
    'not weighted': {'iou_weighted': False},
}


@pytest.mark.parametrize('call', VARIFOCAL_CALLS.values(), ids=VARIFOCAL_CALLS)
def test_varifocal(scored, call):
    x, _, dense = scored
    same(ours.varifocal_loss, varifocal_peer.varifocal_loss, x, dense, dense, **call)


def test_varifocal_by_position(scored):
    x, _, dense = scored
    rest = (random(ROWS, 1), 0.6, 1.0, False, 'mean', 3.0)
    same(ours.varifocal_loss, varifocal_peer.varifocal_loss, x, dense, dense, *rest)


@pytest.fixture
def heatmap():
    """Probabilities and a heatmap with exact ones in it."""
    x, _, one_hot = labelled()
    return x.sigmoid(), torch.where(one_hot == 1, 1.0, 0.9 * random(ROWS, CLASSES))


GAUSSIAN_CALLS = {
    'defaults': {},
    'a weight per pixel': {'weight': random(ROWS, CLASSES), 'avg_factor': 7},
    'avg_factor': {'avg_factor': 3},
    'sum': {'reduction': 'sum'},
    'none': {'reduction': 'none'},
    'other exponents': {'alpha': 1.5, 'gamma': 3.0},
    'other weights': {'pos_weight': 0.25, 'neg_weight': 0.75},
}


@pytest.mark.parametrize('call', GAUSSIAN_CALLS.values(), ids=GAUSSIAN_CALLS)
def test_gaussian_focal(heatmap, call):
    p, target = heatmap
    same(ours.gaussian_focal_loss, gaussian_peer.gaussian_focal_loss, p, target, target, **call)


@pytest.mark.parametrize(
    'call',
    [{}, {'reduction': 'sum'}, {'avg_factor': 3}, {'alpha': 1.5, 'gamma': 3.0, 'pos_weight': 0.25, 'neg_weight': 0.75}],
    ids=['defaults', 'sum', 'avg_factor', 'other parameters'],
)
def test_gaussian_focal_with_positives_named(heatmap, call):
    """One of them twice, and none of them the ones of the heatmap."""
    p, target = heatmap
    rest = (torch.tensor([0, 3, 3, 7]), torch.tensor([1, 0, 0, 4]))
    name = 'gaussian_focal_loss_with_pos_inds'
    same(getattr(ours, name), getattr(gaussian_peer, name), p, target, target, *rest, **call)


def test_positives_named_need_a_reduction(heatmap):
    p, target = heatmap
    index = torch.tensor([0, 3])
    with pytest.raises(ValueError, match="reduction='none'"):
        ours.gaussian_focal_loss_with_pos_inds(p, target, index, index, reduction='none')


@pytest.mark.parametrize('name', [*DECORATED, 'varifocal_loss'])
def test_sum_refuses_avg_factor(scored, name):
    """As mmdet does."""
    x, pair, dense = scored
    target = pair if name in ('quality_focal_loss', 'quality_focal_loss_with_prob') else dense
    for module in (ours, (DECORATED | PLAIN)[name]):
        with pytest.raises(ValueError, match='avg_factor'):
            getattr(module, name)(x.sigmoid(), target, reduction='sum', avg_factor=2)


def test_quality_label_outside_the_classes_is_named(scored):
    """Background to mmdet."""
    x, (labels, scores), _ = scored
    labels[3] = CLASSES + 1
    with pytest.raises(ValueError, match=rf'{CLASSES + 1}\b'):
        ours.quality_focal_loss(x, (labels, scores))
