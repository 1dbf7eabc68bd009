"""Mistakes in tensors: layouts, devices and dtypes that no backend reads, and shapes that do not fit."""

import numpy as np
import torch

from tests.campaign.mistakes import DENSE, LABELS, SCORED, VECTORS, C, N, kind
from tests.campaign.variants import VARIANTS


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
    variant = random.one(VECTORS)
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
