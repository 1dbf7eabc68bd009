"""Random calls, valid and invalid, of every function and class: as the reference has them, or refused."""

import re

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from focal_plugin import backend, use_backend
from tests.campaign import compare, formulas, generate, invalid, report
from tests.campaign.call import written
from tests.campaign.reference import expected
from tests.campaign.report import CALLS, SEED
from tests.campaign.tensors import Random
from tests.campaign.variants import VARIANTS
from tests.conftest import ON_A_GPU, may_look
from tests.oracle.inputs import placed
from tests.variants import VARIANTS as OF_LOGITS

COMPILED = 150  # each with kernels of its own to compile
INVALID = 5 if backend.INTERPRETING else 40
OPERANDS = ('pred', 'target', 'weight', 'labels', 'avg_factor')  # vectors of classes stay where a config makes them

# On interpreted Triton a wrong label makes its row NaN, as on a GPU; a GPU takes other values as they are, too.
LABELS = ('a label that no class has', 'a channel that no mask has', 'a label where there are no classes')
VALUES = ('a dense value outside 0 and 1', 'a score outside 0 and 1', 'a probability outside 0 and 1')


def test_random_calls_are_right(any_backend):
    report.check(any_backend, SEED, range(CALLS if may_look(any_backend) else COMPILED))


VARIANTS_THEN = (
    'focal', 'focal_star', 'quality_focal', 'varifocal', 'gaussian_focal', 'matchability_aware', 'iou_aware_bce',
    'position_supervised', 'equalized_focal', 'class_balanced_focal', 'poly_focal', 'asymmetric', 'reduced_focal',
    'softmax_focal', 'mask_focal',
)  # fmt: skip
"""Those that the calls below were drawn from, in that order."""
LONG = {
    'a target of p_t = threshold at every logit': ('torch', 1, 4308),
    'a target divided by the largest, whose rounding is most of its cross-entropy': ('torch', 0, 47678),
    'a gradient that underflows before a large upstream one': ('native', 1, 7834),
    'a gradient that underflows before its mean': ('native', 1, 10431),
    'a weight of a class whose gradients cancel': ('torch', 0, 17948),
    'an expanded weight beside those of classes': ('torch', 0, 41472),
    'a soft target near 0.5 under a high exponent': ('torch', 0, 29011),
    'a soft target near 0.5 in a polynomial': ('torch', 0, 29014),
    'a probability near a target of 0.5': ('torch', 1, 1655),
    'a probability near the clip': ('native', 0, 42491),
}


@pytest.mark.parametrize(('backend_name', 'seed', 'index'), LONG.values(), ids=LONG)
def test_what_only_a_long_campaign_met(backend_name, seed, index):
    if backend_name == 'native' and not backend.HAS_NATIVE:
        pytest.skip('the native kernel was not built')
    call = generate.call_of(seed, index, backend_name, VARIANTS_THEN)
    with use_backend(backend_name):
        assert compare.faults(call, backend_name, call.pred.numel() > report.LARGE) == []


@pytest.mark.parametrize('kind', invalid.KINDS)
def test_a_mistake_is_refused_with_the_name_of_the_argument(any_backend, device, kind):
    if (any_backend in ON_A_GPU and kind in LABELS) or (kind in VALUES and not may_look(any_backend)):
        pytest.skip('nobody looks on a GPU')
    wrong = []
    for index in range(INVALID):
        variant, arguments, words = invalid.refusal(Random(SEED, index, list(invalid.KINDS).index(kind)), kind)
        arguments = {name: placed(value, device) if name in OPERANDS else value for name, value in arguments.items()}
        try:
            result = f'accepted: {invalid.invoke(variant, arguments)}'
        except (TypeError, ValueError) as error:
            result = '' if re.search(words, str(error)) else f'{type(error).__name__} without {words}: {error}'
        except Exception as error:  # from inside
            result = f'{type(error).__name__}: {error}'
        if result:
            wrong.append(f'{variant} {arguments}\n  {result[:300]}')
    assert not wrong, f'{len(wrong)} of {INVALID} on {any_backend}, the first:\n' + '\n'.join(wrong[:5])


@pytest.mark.parametrize('variant', [name for name in VARIANTS if name != 'mask_focal'])
def test_a_wrong_label_makes_its_row_nan_where_nobody_looks(any_backend, device, variant):
    """As on a GPU: its loss and its gradient, and no other row's."""
    if any_backend not in ON_A_GPU:
        pytest.skip('a CPU refuses it')
    arguments = invalid.sound(Random(SEED), variant)
    arguments['target'][1] = 200
    arguments = {name: placed(value, device) for name, value in arguments.items()}
    pred = arguments['pred'].requires_grad_()
    loss = invalid.invoke(variant, arguments | {'reduction': 'none'})
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    for result in (loss, grad):
        assert result[1].isnan().all() and result[[0, 2, 3]].isfinite().all()


def test_a_campaign_is_a_function_of_its_seed():
    for index in range(50):
        one, other = (written(generate.call_of(SEED, index, 'torch')) for _ in range(2))
        assert one == other
    assert written(generate.call_of(SEED + 1, 0, 'torch')) != written(generate.call_of(SEED, 0, 'torch'))


def test_the_two_references_agree():
    """Closed forms in longdouble and differentiable formulas in float64, where both hold: value and derivative."""
    agreed = set()
    for index in range(600):
        call = generate.call_of(SEED, index, 'torch')
        soft = call.target[1] if isinstance(call.target, tuple) else call.target
        if call.variant == 'mask_focal' or not compare.is_moderate(call):
            continue
        values = soft.to(call.arithmetic).double().clamp(max=1) if soft.is_floating_point() else None
        x = call.pred.double().contiguous().requires_grad_()
        loss = formulas.loss(call, x, values)
        upstream = call.upstream.double().contiguous()
        (grad,) = torch.autograd.grad(loss, x, upstream, materialize_grads=True)
        exact = expected(call)
        if call.spec.factor_of_label is None:  # the factors are not in the formulas
            np.testing.assert_allclose(loss.detach(), exact.loss.value.astype(float), rtol=1e-6, atol=1e-10)
            bound = 1e-6 * np.abs(exact.grad.terms).max(initial=0) + 1e-12
            np.testing.assert_array_less(np.abs(grad.numpy() - exact.grad.value.astype(float)), bound)
            agreed.add(call.variant)
    assert agreed == {name for name, variant in OF_LOGITS.items() if variant.factor_of_label is None}


def test_a_call_whose_reference_raises_is_wrong_and_the_next_ones_are_made(monkeypatch):
    def of_few(call):
        if call.reduction == 'sum':
            raise AssertionError('no sums')
        return expected(call)

    monkeypatch.setattr(compare, 'expected', of_few)
    sums = [index for index in range(30) if generate.call_of(SEED, index, 'torch').reduction == 'sum']
    found = report.wrong('torch', SEED, range(30))
    assert found == [(index, 'the reference raises AssertionError: no sums') for index in sums]
    with pytest.raises(AssertionError, match=f'{len(sums)} of 30 calls are wrong on torch(.|\n)*no sums'):
        report.check('torch', SEED, range(30))


@pytest.mark.parametrize('error', (ValueError, KeyboardInterrupt))
def test_what_is_found_before_an_error_is_shown(monkeypatch, error):
    def until_two(seed, index, backend):
        if index == 2:
            raise error
        return generate.call_of(seed, index, backend)

    monkeypatch.setattr(report, 'call_of', until_two)
    with pytest.raises(error):
        report.check('torch', SEED, range(5))
    monkeypatch.setattr(report, 'faults', lambda call, backend, threads: ['value: wrong'])
    monkeypatch.setattr(report, 'shrunk', lambda call, backend, threads: call)
    with pytest.raises(AssertionError, match='2 of 5 calls are wrong on torch'):
        report.check('torch', SEED, range(5))


@pytest.mark.parametrize('shape', ((2, 3, 4), (2, 3, 4, 5), (3, 4)))
def test_the_quality_loss_of_maps_has_the_axis_that_mmdet_sums(any_backend, device, shape):
    pred = torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(device)
    target = torch.rand(shape, generator=torch.Generator().manual_seed(SEED + 1)).to(device)
    for reduction in ('none', 'mean', 'sum'):
        ours, theirs = (
            MODELS.build({'type': f'{prefix}QualityFocalLoss', 'reduction': reduction}) for prefix in ('Fused', '')
        )
        torch.testing.assert_close(ours(pred, target), theirs(pred, target), rtol=1e-5, atol=1e-6)
