"""The costs of matching against mmdet's and against the oracle: the loss as a positive minus the loss as a negative."""

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.assigners import FocalLossCost
from mmdet.registry import TASK_UTILS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import focal_plugin
from focal_plugin.losses import CLASSES
from focal_plugin.match_costs import FusedBinaryFocalLossCost, FusedFocalLossCost
from focal_plugin.math import SPECS
from tests import oracle
from tests.allocations import allocated
from tests.oracle.variants import variant_loss
from tests.variants import VARIANTS

Q, C, G = 23, 7, 5
INF = float('inf')
# Losses that give each class a value of its own, with nothing gathered and no weight of a row
PLAIN = [
    name
    for name, spec in SPECS.items()
    if name != 'focal' and VARIANTS[name].point and not spec.statistics and not VARIANTS[name].factor_of_label
]


@pytest.fixture
def scores() -> torch.Tensor:
    torch.manual_seed(0)
    return 4 * torch.randn(Q, C)


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.tensor([3, 0, 6, 3, 1])


def cost_of(cost, scores, labels) -> torch.Tensor:
    return cost(InstanceData(scores=scores), InstanceData(labels=labels))


def cost_of_masks(cost, pred, masks) -> torch.Tensor:
    return cost(InstanceData(masks=pred), InstanceData(masks=masks))


def exact(scores, labels, gamma=2.0, alpha=0.25) -> tuple[np.ndarray, np.ndarray]:
    """(the focal costs, the magnitudes that they are the difference of)."""
    x = oracle.array(scores)[:, oracle.array(labels)]
    positive, negative = (oracle.focal(x, np.full(x.shape, y), gamma, alpha).value for y in (1.0, 0.0))
    return positive - negative, positive + negative


def test_labels_as_mmdets(scores, labels):
    """Where 1 - p, which mmdet rounds, keeps its digits."""
    scores = scores.clamp(-4, 4)
    for arguments in (dict(), dict(alpha=0.5, gamma=1.5, weight=2.0)):
        ours, theirs = FusedFocalLossCost(**arguments), FocalLossCost(**arguments)
        torch.testing.assert_close(cost_of(ours, scores, labels), cost_of(theirs, scores, labels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', (torch.int64, torch.float32, torch.bool), ids=str)
def test_masks_as_mmdets(dtype):
    torch.manual_seed(0)
    pred, masks = torch.randn(Q, 9, 11).mul_(2).clamp_(-4, 4), (torch.rand(G, 9, 11) < 0.3).to(dtype)
    ours, theirs = FusedBinaryFocalLossCost(weight=20.0), FocalLossCost(binary_input=True, weight=20.0)
    wanted = cost_of_masks(theirs, pred, masks.float())
    torch.testing.assert_close(cost_of_masks(ours, pred, masks), wanted, rtol=1e-5, atol=1e-5)
    flat = cost_of_masks(ours, pred.flatten(1), masks.flatten(1))
    torch.testing.assert_close(flat, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(
        cost_of_masks(FusedFocalLossCost(binary_input=True, weight=20.0), pred, masks).argmin(0), wanted.argmin(0)
    )


def test_soft_masks_and_many_chunks(monkeypatch):
    from focal_plugin.match_costs import evaluate

    torch.manual_seed(0)
    pred, masks = 3 * torch.randn(Q, 40, 40), torch.rand(G, 40, 40)
    x = oracle.array(pred).reshape(Q, 1, -1)
    y = oracle.array(masks).reshape(1, G, -1)
    positive, negative = (oracle.focal(x, np.full(x.shape, t)).value for t in (1.0, 0.0))
    wanted = (positive * y + negative * (1 - y)).mean(-1)
    for chunk in (evaluate.CHUNK['cpu'], 100):
        monkeypatch.setitem(evaluate.CHUNK, 'cpu', chunk)
        found = cost_of_masks(FusedBinaryFocalLossCost(), pred, masks)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize('dtype', (torch.float32, torch.float64, torch.float16, torch.bfloat16), ids=str)
def test_exact_at_every_logit(dtype, labels):
    scores = torch.linspace(-100, 100, 4 * Q * C).reshape(-1, C).to(dtype)
    found = cost_of(FusedFocalLossCost(gamma=1.5), scores, labels)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    wanted, terms = exact(scores, labels, gamma=1.5)
    assert (np.abs(found.numpy() - wanted) <= 1e-5 * terms + 1e-37).all()


def test_where_mmdet_is_off(labels):
    """At a logit of -50 the cross-entropy is 50; 1e-12 beside the probability stops it at 27.6."""
    scores = torch.full((1, C), -50.0)
    wanted = torch.full((1, G), 0.25 * 50.0)
    torch.testing.assert_close(cost_of(FusedFocalLossCost(), scores, labels), wanted)
    assert (cost_of(FocalLossCost(), scores, labels) < 0.6 * wanted).all()


@pytest.mark.parametrize('value', (INF, -INF, 3e38))
def test_infinite_logits_have_finite_costs(value, labels):
    """The assignment refuses infinite costs."""
    found = cost_of(FusedFocalLossCost(), torch.full((2, C), value), labels)
    assert found.isfinite().all() and (found < -1e28 if value > 0 else found > 1e28).all()
    masks = torch.ones(1, 4, 4)
    assert cost_of_masks(FusedBinaryFocalLossCost(), torch.full((2, 4, 4), value), masks).isfinite().all()


@pytest.mark.parametrize('name', PLAIN)
def test_cost_of_any_loss(name, scores, labels):
    loss = dict(type=CLASSES[name].__name__, use_sigmoid=True)
    found = cost_of(FusedFocalLossCost(loss=loss, weight=3.0), scores, labels)
    x = oracle.array(scores[:, labels]).reshape(-1, 1)
    ends = []
    for label in (0, 1):
        target = torch.full((len(x),), label)
        target = (target, torch.ones(len(x))) if SPECS[name].scored else target
        ends.append(variant_loss(name, x, target, reduction='none', **SPECS[name].defaults))
    values = [np.asarray(end.value, float).reshape(Q, G) for end in ends]
    difference, terms = values[0] - values[1], np.abs(values[0]) + np.abs(values[1])
    assert (np.abs(found.numpy() - 3.0 * difference) <= 3e-5 * terms + 1e-30).all()
    plain = cost_of(FusedFocalLossCost(weight=3.0), scores, labels)
    is_focal = np.allclose(
        3.0 * difference, plain.numpy(), rtol=1e-4
    )  # as the position-supervised loss at a quality of 1
    assert torch.allclose(found, plain) == is_focal


def test_numbers_of_each_class_go_with_their_label(scores, labels):
    alpha, gamma = torch.linspace(0.1, 0.9, C), torch.linspace(0.5, 4.0, C)
    found = cost_of(FusedFocalLossCost(alpha=alpha.tolist(), gamma=gamma.tolist()), scores, labels)
    for column, label in enumerate(labels):
        a, g = alpha[label].item(), gamma[label].item()
        wanted, terms = exact(scores, labels[column : column + 1], gamma=g, alpha=a)
        assert (np.abs(found[:, column : column + 1].numpy() - wanted) <= 1e-5 * terms).all()


def test_class_balanced_positives_have_their_weight(scores, labels):
    samples = [10.0, 1000.0, 3.0, 50.0, 7.0, 20.0, 400.0]
    loss = dict(type='FusedClassBalancedFocalLoss', use_sigmoid=True, samples_per_class=samples)
    found = cost_of(FusedFocalLossCost(loss=loss), scores, labels)
    beta, gamma = (SPECS['class_balanced_focal'].defaults[name] for name in ('class_beta', 'gamma'))
    weight = (1 - beta) / (1 - beta ** np.array(samples))
    weight *= C / weight.sum()
    x = oracle.array(scores)[:, labels.numpy()]
    positive, negative = (oracle.focal(x, np.full(x.shape, y), gamma, None).value for y in (1.0, 0.0))
    wanted = weight[labels.numpy()] * positive - negative
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_matching_by_config(scores, labels):
    init_default_scope('mmdet')
    costs = [
        dict(type='FocalLossCost', weight=2.0),
        dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
    ]
    torch.manual_seed(0)
    boxes = torch.rand(Q + G, 4) * 30 + torch.tensor([0.0, 0, 40, 40])
    pred = InstanceData(scores=scores, bboxes=boxes[:Q])
    truth = InstanceData(labels=labels, bboxes=boxes[Q:])
    results = []
    for kind in ('FocalLossCost', 'FusedFocalLossCost'):
        costs[0]['type'] = kind
        assigner = TASK_UTILS.build(dict(type='HungarianAssigner', match_costs=costs))
        results.append(assigner.assign(pred, truth, img_meta=dict(img_shape=(100, 100))))
    assert torch.equal(results[0].gt_inds, results[1].gt_inds) and results[0].gt_inds.max() == G


def test_no_temporaries_of_all_queries_by_all_classes():
    queries, classes, objects = 900, 1203, 5
    scores, labels = torch.randn(queries, classes), torch.randint(0, classes, (objects,))
    ours, theirs = (
        allocated(lambda cost=cost: cost_of(cost, scores, labels)) for cost in (FusedFocalLossCost(), FocalLossCost())
    )
    assert ours <= 8 * 4 * queries * objects + 4096
    assert theirs >= 4 * queries * classes


def test_masks_in_chunks():
    queries, pixels = 20, 300_000
    pred, masks = torch.randn(queries, pixels), torch.rand(3, pixels) < 0.5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        cost_of_masks(FusedBinaryFocalLossCost(), pred, masks)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    assert 0 < peak < pred.numel()  # a quarter of the logits' bytes; mmdet's holds several times all of them


def test_under_autocast_and_without_a_graph(scores, labels):
    cost = FusedFocalLossCost()
    plain = cost_of(cost, scores, labels)
    leaf = scores.clone().requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = cost_of(cost, leaf, labels)
        masks = cost_of_masks(FusedBinaryFocalLossCost(), leaf, (scores[:2] > 0).float())
    assert torch.equal(found, plain) and not found.requires_grad
    assert torch.equal(masks, cost_of_masks(FusedBinaryFocalLossCost(), scores, (scores[:2] > 0).float()))


def test_inputs_stay_as_they_are(scores, labels):
    copy = scores.clone()
    cost_of(FusedFocalLossCost(weight=7.0), scores, labels)
    cost_of_masks(FusedBinaryFocalLossCost(), scores, torch.ones(2, C))
    assert torch.equal(scores, copy)


def test_nothing_to_match(scores):
    none = torch.zeros(0, dtype=torch.int64)
    assert cost_of(FusedFocalLossCost(), scores, none).shape == (Q, 0)
    assert cost_of(FusedFocalLossCost(), scores[:0], torch.tensor([1])).shape == (0, 1)
    assert cost_of_masks(FusedBinaryFocalLossCost(), scores, torch.ones(0, C)).shape == (Q, 0)


BAD_CALLS = {
    'a label too high': (lambda s, _: (s, torch.tensor([C])), ValueError, rf'label {C} is outside \[0, {C}\)'),
    'a negative label': (lambda s, _: (s, torch.tensor([-1])), ValueError, 'label -1 is outside'),
    'labels that are no integers': (lambda s, g: (s, g.float()), TypeError, 'labels must be integers'),
    'labels in two dimensions': (lambda s, g: (s, g[None]), ValueError, r'must have the shape \(objects,\)'),
    'scores in three': (lambda s, g: (s[None], g), ValueError, r'shape \(queries, classes\)'),
    'integer scores': (lambda s, g: (s.long(), g), TypeError, 'pred must be'),
}


@pytest.mark.parametrize(('make', 'error', 'message'), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls_are_said(make, error, message, scores, labels):
    with pytest.raises(error, match=message):
        FusedFocalLossCost()._focal_loss_cost(*make(scores, labels))


def test_masks_that_do_not_fit(scores):
    with pytest.raises(ValueError, match='do not fit pred'):
        cost_of_masks(FusedBinaryFocalLossCost(), torch.zeros(3, 4, 4), torch.zeros(2, 5, 5))


BAD_CONFIGS = {
    'a loss over a softmax': (dict(loss=dict(type='FusedSoftmaxFocalLoss')), ValueError, 'ClassificationCost'),
    'a loss that gathers': (
        dict(loss=dict(type='FusedEqualizedFocalLoss', num_classes=C)), ValueError, 'gathers in training'
    ),
    "mmdet's own": (dict(loss=dict(type='FocalLoss', use_sigmoid=True)), TypeError, "one of focal_plugin's"),
    'no config': (dict(loss='FusedFocalLoss'), TypeError, 'must be the config of a loss'),
    'numbers in two places': (dict(gamma=1.0, loss=dict(type='FusedFocalLoss')), ValueError, 'write gamma=1.0 there'),
    'a gamma below 0': (dict(gamma=-1.0), ValueError, 'gamma must be'),
    'classes of masks': (dict(binary_input=True, alpha=[0.1, 0.2]), ValueError, 'write one number'),
}  # fmt: skip


@pytest.mark.parametrize(('arguments', 'error', 'message'), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configs_are_said(arguments, error, message):
    init_default_scope('mmdet')
    with pytest.raises(error, match=message):
        FusedFocalLossCost(**arguments)


def test_binary_is_for_masks():
    with pytest.raises(ValueError, match='write FusedFocalLossCost for labels'):
        FusedBinaryFocalLossCost(binary_input=False)


def test_names_are_registered():
    assert TASK_UTILS.get('FusedFocalLossCost') is FusedFocalLossCost
    assert TASK_UTILS.get('FusedBinaryFocalLossCost') is FusedBinaryFocalLossCost
    assert focal_plugin.match_costs.FusedFocalLossCost is FusedFocalLossCost
