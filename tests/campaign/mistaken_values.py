"""Mistakes in values: labels, targets, numbers, flags and names."""

import math

import numpy as np
import torch

from tests.campaign.mistakes import CLASSES, DENSE, LABELS, PROBABILITIES, SCORED, VECTORS, C, N, kind
from tests.campaign.tensors import NAN
from tests.campaign.variants import VARIANTS


@kind
def a_label_that_no_class_has(random):
    variant = random.one(LABELS)
    labels = random.integers(C, (N,))
    labels[random.below(N)] = random.one((-1, C + 1, 255, -100, 2**40, C if variant == 'softmax_focal' else 9))
    return variant, {'target': labels}, 'label|target'


@kind
def a_channel_that_no_mask_has(random):
    labels = random.integers(C, (N,))
    labels[random.below(N)] = random.one((-1, C, 255))
    changed = {'pred': torch.zeros(N, C, 5), 'target': torch.zeros(N, 5), 'labels': labels}
    return 'mask_focal', changed, 'label'


@kind
def a_label_where_there_are_no_classes(random):
    variant = random.one([each for each in LABELS if each not in ('softmax_focal', 'class_balanced_focal')])
    return variant, {'pred': torch.zeros(N, 0), 'target': torch.full((N,), 5)}, 'label|target'


@kind
def a_dense_value_outside_0_and_1(random):
    variant = random.one((*DENSE, 'mask_focal'))
    bad = random.one((-1, 255, 2, 1.5, -0.01, 1.01, math.inf))
    target = random.integers(2, (N, C)).double()
    target[random.below(N), random.below(C)] = bad
    whole = isinstance(bad, int)
    dtypes = (
        (torch.int64, torch.int32) + (torch.uint8,) * (bad > 0) if whole and random.chance(0.6) else (torch.float32,)
    )
    return variant, {'target': target.to(random.one(dtypes))}, 'target'


@kind
def a_score_outside_0_and_1(random):
    scores = random.uniform((N,)).float()
    scores[random.below(N)] = random.one((1.5, -0.1, 2.0, math.inf, -math.inf))
    return random.one(SCORED), {'target': (random.integers(C, (N,)), scores)}, 'score'


@kind
def a_probability_outside_0_and_1(random):
    variant = random.one(PROBABILITIES)
    pred = random.uniform((N, C)).float()
    pred[0, 0] = random.one((1.2, -0.1, math.inf))
    if random.chance(0.3):
        pred[1, 1] = NAN
    flag = {} if variant == 'gaussian_focal' else {'activated': True}
    target = random.integers(2, (N, C)).float()
    return variant, {'pred': pred, 'target': target, **flag}, 'activated|from_logits|probabilit|pred'


@kind
def an_ignore_index_that_is_none(random):
    value = random.one(
        (2**64 + 1, -(2**64), True, 1.5, 'a', np.float32(255), np.bool_(True), object(), torch.tensor([1, 2]))
    )
    return random.one(LABELS), {'ignore_index': value}, 'ignore_index'


@kind
def an_ignore_index_for_a_dense_target(random):
    return random.one(DENSE), {'target': torch.zeros(N, C), 'ignore_index': 255}, 'ignore_index'


@kind
def an_avg_factor_that_is_no_number(random):
    value = random.one((
        True, 1j, 10**400, 'a', b'1', object(), [1.0], np.bool_(True), np.complex64(1), np.array([1.0, 2.0]),
        torch.tensor([1.0, 2.0]), torch.tensor(1j), torch.tensor(True), torch.zeros(1, 1), torch.zeros(0),
    ))  # fmt: skip
    return random.one(tuple(VARIANTS)), {'avg_factor': value, 'reduction': random.one(('mean', 'none'))}, 'avg_factor'


@kind
def avg_factor_with_a_sum(random):
    value = random.one((2, torch.tensor(2.0), np.float32(2)))
    return random.one(tuple(VARIANTS)), {'avg_factor': value, 'reduction': 'sum'}, 'avg_factor'


@kind
def a_flag_that_is_neither(random):
    flags = [(name, flag) for name, each in VARIANTS.items() for flag in _flags(each)]
    variant, flag = random.one(flags)
    value = random.one((2, None, object(), 'no', 0.5, np.array([True, False]), torch.tensor([0, 1]), -1))
    return variant, {flag: value}, flag


def _flags(variant):
    flags = [name for name, values in variant.tried.items() if isinstance(values[0], bool)]
    return flags + [variant.probabilities] * (variant.probabilities is not None)


@kind
def a_parameter_that_is_no_number(random):
    variant = random.one(tuple(VARIANTS))
    names = [name for name, values in VARIANTS[variant].tried.items() if not isinstance(values[0], (bool, str))]
    name = random.one([each for each in names if each != 'samples_per_class'] or ['gamma'])
    value = random.one((math.nan, math.inf, 'a', b'abc', object(), True, 1j, 10**400, np.bool_(True), {}))
    return variant, {name: value}, name


@kind
def a_parameter_outside_its_range(random):
    variant, name, value = random.one((
        ('focal', 'gamma', -1), ('focal', 'alpha', 1.5), ('softmax_focal', 'gamma', -0.5),
        ('softmax_focal', 'alpha', -math.inf), ('quality_focal', 'beta', -1), ('varifocal', 'alpha', -0.5),
        ('varifocal', 'gamma', -1), ('gaussian_focal', 'alpha', -1),
        ('gaussian_focal', 'pos_weight', -1), ('matchability_aware', 'mal_alpha', -1), ('iou_aware_bce', 'k', 1.5),
        ('iou_aware_bce', 'k', -0.5), ('position_supervised', 'alpha', -0.5), ('position_supervised', 'normalize', 'image'),
        ('equalized_focal', 'gamma', 0), ('equalized_focal', 'scale', -1), ('equalized_focal', 'ratio', 2),
        ('poly_focal', 'epsilon', -2), ('asymmetric', 'clip', 1), ('asymmetric', 'gamma_neg', -1),
        ('reduced_focal', 'threshold', 0), ('reduced_focal', 'threshold', 1.5), ('focal_star', 'gamma', 0),
        ('class_balanced_focal', 'class_beta', 1), ('mask_focal', 'gamma', -1), ('mask_focal', 'alpha', 2),
    ))  # fmt: skip
    value = random.one((value, np.float64(value), np.float32(value))) if isinstance(value, (int, float)) else value
    return variant, {name: value}, name


@kind
def a_vector_that_does_not_fit(random):
    variant = random.one(VECTORS)
    name = random.one(tuple(VARIANTS[variant].vectors))
    value = random.one((
        [1.0] * (C + 1), [0.5] * (C - 1), [], torch.full((C + 2,), 0.5), torch.full((C, 1), 0.5),
        torch.full((C,), 1.5 if name == 'alpha' else -1.5),
        [0.5, 0.5, math.nan], [0.5, 'a', 0.5], torch.tensor([0.5, 0.5, math.nan]),
        torch.full((C,), 0.5 + 0j), torch.ones(C, dtype=torch.bool), [True] * C,
    ))  # fmt: skip
    return variant, {name: value}, f'{name}|gamma or alpha'


@kind
def samples_that_are_none(random):
    value = random.one(
        (b'abc', 'abc', None, 3, [1, 2], [0] * C, [1, 2, math.nan], [1, 2, 'a'], torch.ones(C, 2), {1: 2})
    )
    return 'class_balanced_focal', {'samples_per_class': value}, 'samples_per_class'


@kind
def a_reduction_that_is_none(random):
    value = random.one(
        ('avg', None, np.array(['mean', 'sum']), np.array([1, 2]), 3, ['mean'], torch.tensor([1, 2]), b'mean')
    )
    return random.one(tuple(VARIANTS)), {'reduction': value}, 'reduction'


def _built(random) -> tuple[str, dict]:
    """A class, and what it must be given."""
    name = random.one(tuple(CLASSES))
    required = {
        'FusedClassBalancedFocalLoss': {'samples_per_class': [1, 2]},
        'FusedEqualizedFocalLoss': {'num_classes': 2},
    }
    return name, required.get(name, {})


@kind
def a_loss_weight_that_is_no_number(random):
    name, given = _built(random)
    value = random.one(('a', math.nan, math.inf, True, None, object(), [1.0], 1j, 10**400, b'1', np.array([1.0, 2.0])))
    return name, given | {'loss_weight': value}, 'loss_weight'


@kind
def a_class_with_a_reduction_that_is_none(random):
    name, given = _built(random)
    return name, given | {'reduction': random.one(('avg', None, 3, np.array(['mean', 'sum']), ['mean']))}, 'reduction'


@kind
def a_class_with_an_argument_that_no_loss_has(random):
    name, given = _built(random)
    argument = random.one(('bg_cls_weight', 'label_smoothing', 'pos_weigth', 'eps', 'gama', 'weight'))
    return name, given | {argument: 1.0}, argument


@kind
def a_class_with_the_other_activation(random):
    name, given = _built(random)
    other = name == 'FusedSoftmaxFocalLoss'
    return name, given | {'use_sigmoid': random.one((other, None, 'no', 2, np.array([1, 0])))}, 'use_sigmoid'


@kind
def a_softmax_over_one_class(random):
    return (
        'softmax_focal',
        {'pred': torch.zeros(N, random.below(2)), 'target': torch.zeros(N, dtype=torch.int64)},
        'sigmoid|class',
    )
