"""Calls that must be refused with a ValueError or TypeError that names the argument.

A kind of mistake is a function of the random generator that gives the function's name, its arguments, and the words of
which the message must hold one.
"""

import math

import numpy as np
import torch

from campaign.tensors import NAN, Random
from campaign.variants import VARIANTS
from focal_plugin import functional, losses

LABELS = [name for name in VARIANTS if name != 'mask_focal']
SCORED = [name for name, variant in VARIANTS.items() if variant.scored]
DENSE = [name for name, variant in VARIANTS.items() if variant.dense and name != 'mask_focal']
GAMMAS = [name for name, variant in VARIANTS.items() if 'gamma' in variant.tried]
PROBABILITIES = [name for name, variant in VARIANTS.items() if variant.probabilities]
CLASSES = {each.kind: each for each in VARIANTS.values()}
N, C = 4, 3

KINDS = {}


def kind(function):
    KINDS[function.__name__.replace('_', ' ')] = function
    return function


def sound(random: Random, variant: str) -> dict:
    """The arguments of a call that nothing is wrong with."""
    arguments = {'pred': random.normal((N, C)).float(), 'target': random.integers(C, (N,))}
    if variant == 'mask_focal':
        arguments = {'pred': random.normal((N, C)).float(), 'target': random.integers(2, (N, C))}
    if variant == 'gaussian_focal':  # probabilities, by default
        arguments['pred'] = random.uniform((N, C)).float()
    if variant == 'class_balanced_focal':
        arguments['samples_per_class'] = [10.0] * C
    return arguments


def refusal(random: Random, name: str) -> tuple[str, dict, str]:
    """(function, arguments, a regular expression of which the message must hold a match)."""
    variant, changed, words = KINDS[name](random)
    return variant, (changed if variant in CLASSES else sound(random, variant) | changed), words


def invoke(variant: str, arguments: dict):
    """Calls the function, or builds the class."""
    callee = getattr(losses, variant) if variant in CLASSES else getattr(functional, VARIANTS[variant].function)
    return callee(**arguments)


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
    own = [name for name, values in variant.tried.items() if isinstance(values[0], bool)]
    return own + [variant.probabilities] * (variant.probabilities is not None)


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
    variant = random.one([name for name, each in VARIANTS.items() if each.vectors])
    name = random.one(tuple(VARIANTS[variant].vectors))
    value = random.one((
        [1.0] * (C + 1), [0.5] * (C - 1), [], torch.full((C + 2,), 0.5), torch.full((C, 1), 0.5), torch.full((C,), 1.5 if name == 'alpha' else -1.5), [0.5, 0.5, math.nan], [0.5, 'a', 0.5], torch.tensor([0.5, 0.5, math.nan]),
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


def _unread(random, tensor):
    """A tensor of the same shape that no backend reads."""
    dense = tensor.float()
    makers = [
        lambda: dense.to_sparse(), lambda: torch.zeros(tensor.shape, device='meta', dtype=tensor.dtype),
        lambda: torch.quantize_per_tensor(dense, 0.1, 0, torch.quint8), lambda: dense.to(torch.float8_e4m3fn),
        lambda: dense.to(torch.float8_e5m2), lambda: dense.to_mkldnn(), lambda: dense + 0j,
        lambda: torch.nested.nested_tensor([dense, dense]),
    ]  # fmt: skip
    if dense.dim() == 2:
        makers += [lambda: dense.to_sparse_csr(), lambda: dense.to_sparse_csc(), lambda: dense.to_sparse_bsr((1, 1))]
    return random.one(makers)()


@kind
def pred_that_no_backend_reads(random):
    variant = random.one(tuple(VARIANTS))
    return variant, {'pred': _unread(random, torch.zeros(N, C))}, 'pred|logits'


@kind
def a_target_that_no_backend_reads(random):
    variant = random.one((*DENSE, 'mask_focal'))
    return variant, {'target': _unread(random, torch.zeros(N, C))}, 'target'


@kind
def labels_that_no_backend_reads(random):
    bad = random.one((
        lambda labels: labels.to_sparse(), lambda labels: labels.to('meta'), lambda labels: labels.float(),
        lambda labels: labels.bool(), lambda labels: torch.quantize_per_tensor(labels.float(), 1.0, 0, torch.quint8),
        lambda labels: torch.nested.nested_tensor([labels, labels]),
    ))  # fmt: skip
    return random.one(LABELS), {'target': bad(torch.zeros(N, dtype=torch.int64))}, 'target|label'


@kind
def scores_that_no_backend_reads(random):
    return random.one(SCORED), {'target': (torch.zeros(N, dtype=torch.int64), _unread(random, torch.zeros(N)))}, 'score'


@kind
def a_weight_that_no_backend_reads(random):
    variant = random.one(tuple(VARIANTS))
    shape = (N,) if variant == 'softmax_focal' or random.chance(0.5) else (N, C)
    return variant, {'weight': _unread(random, torch.ones(shape))}, 'weight'


@kind
def a_parameter_that_no_backend_reads(random):
    variant = random.one([name for name, each in VARIANTS.items() if each.vectors])
    name = random.one(tuple(VARIANTS[variant].vectors))
    return variant, {name: _unread(random, torch.ones(C))}, name


@kind
def an_avg_factor_that_no_backend_reads(random):
    return random.one(tuple(VARIANTS)), {'avg_factor': _unread(random, torch.ones(1))}, 'avg_factor'


@kind
def an_argument_that_is_no_tensor(random):
    name = random.one(('pred', 'target', 'weight'))
    value = random.one(([[1.0]], 1.0, 'a', np.zeros((N, C)), object()))
    return random.one(tuple(VARIANTS)), {name: value}, name


@kind
def pred_of_integers_or_without_dimensions(random):
    value = random.one((torch.zeros(N, C, dtype=torch.int64), torch.zeros(N, C, dtype=torch.bool), torch.zeros(())))
    return random.one(tuple(VARIANTS)), {'pred': value}, 'pred'


@kind
def a_weight_of_a_wrong_shape(random):
    shape = random.one(((N + 1,), (C,), (N, C + 1), (1,), (), (C, N), (N, 1, 1), (2, N)))
    return random.one(tuple(VARIANTS)), {'weight': torch.ones(shape)}, 'weight'


@kind
def a_target_of_a_wrong_shape(random):
    shape = random.one(((N + 1,), (N, C + 1), (N, C, 1), (C, N), (N, 1), ()))
    return random.one(LABELS), {'target': torch.zeros(shape, dtype=torch.int64)}, 'target|label'


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
    argument = random.one(('class_weight', 'bg_cls_weight', 'label_smoothing', 'pos_weigth', 'eps', 'gama', 'weight'))
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
