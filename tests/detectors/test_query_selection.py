"""Detectors that select queries a chunk of class logits at a time against mmdet's own, on random tokens."""

import math

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from tests.allocations import Made, allocations
from tests.detectors.selecting import (
    FUSED,
    QUERIES,
    TOKENS,
    WIDTH,
    Adapted,
    backward,
    class_branch,
    inputs,
    pair,
    selection,
)
from tests.heads.detectors import build, error, gradients, model_config

pytestmark = pytest.mark.usefixtures('one_thread')


def compare(stock: nn.Module, fused: nn.Module, given: dict, rtol: float = 1e-5) -> None:
    """The same queries, the same inputs of decoder and loss, the same gradients."""
    (want_scores, want_indices, want, want_gradients), (scores, indices, got, got_gradients) = (
        outcome(model, given) for model in (stock, fused)
    )
    assert scores.dtype is want_scores.dtype and not scores.requires_grad
    assert_close(dict(scores=scores), dict(scores=want_scores), rtol)
    # The places that padding leaves are all the same token, and rounding may decide which of them is first.
    for token in stock.gen_encoder_output_proposals(**given):
        assert same(*(token.take_along_dim(each.unsqueeze(-1), dim=1) for each in (indices, want_indices)))
    assert_close(got, want, rtol)
    finite = {key for key, gradient in want_gradients.items() if gradient.isfinite().all()}
    assert finite == {key for key, gradient in got_gradients.items() if gradient.isfinite().all()}
    assert error(*({key: those[key] for key in finite} for those in (got_gradients, want_gradients))) <= rtol


def outcome(model: nn.Module, given: dict) -> tuple[torch.Tensor, torch.Tensor, dict, dict]:
    """The scores of all tokens, the indices of the selected, what decoder and loss get, and gradients."""
    model.zero_grad()
    given['memory'].grad = None
    scores, indices, found = selection(model, given)
    backward(found)
    return scores, indices, found, gradients(model) | dict(memory=given['memory'].grad)


def assert_close(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], rtol: float) -> None:
    assert got.keys() == want.keys()
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=rtol, atol=rtol, equal_nan=True)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


CASES = {
    'one class': dict(classes=1),
    'two classes': dict(classes=2),
    'LVIS': dict(classes=1203),
    'a token at a time, larger than the chunk': dict(classes=80, rows=0),
    'chunks that end with an image': dict(classes=80, rows=TOKENS),
    'a chunk for all': dict(classes=80, rows=10**6),
    'one query': dict(classes=80, num_queries=1),
    'every token a query, invalid ones too': dict(classes=80, num_queries=TOKENS),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
@pytest.mark.parametrize('padded', (False, True), ids=('whole images', 'padding'))
def test_dino_in_training(case, padded):
    compare(*pair('DINO', **case), inputs(padded))


@pytest.mark.parametrize('name', FUSED)
@pytest.mark.parametrize('case', ('two classes', 'every token a query, invalid ones too'))
@pytest.mark.parametrize('padded', (False, True), ids=('whole images', 'padding'))
def test_predictions_of_both(name, case, padded):
    stock, fused = (model.eval() for model in pair(name, **CASES[case]))
    compare(stock, fused, inputs(padded))


def with_whole_numbers(model: nn.Module) -> nn.Module:
    """The model with logits that are whole numbers, small enough for every dtype: many tie, and none is rounded."""
    generator = torch.Generator().manual_seed(2)
    model.memory_trans_fc, model.memory_trans_norm = nn.Identity(), nn.Identity()
    with torch.no_grad():
        for parameter in class_branch(model).parameters():
            parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator))
    return model


@pytest.mark.sampled(6)
@pytest.mark.parametrize('name', FUSED)
@pytest.mark.parametrize('dtype', (None, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize('special', ('ties', 'NaN', 'infinity'))
def test_ties_and_special_values_in_every_precision(name, dtype, special):
    stock, fused = (with_whole_numbers(model) for model in pair(name, classes=80))
    if name != 'DINO':
        stock, fused = stock.eval(), fused.eval()
    given = inputs()
    with torch.no_grad():
        given['memory'].sign_()
        given['memory'][:, 100:104] = dict(ties=0.0, NaN=math.nan, infinity=math.inf)[special]
    # Their autocast makes the scores' dtype, ours has to make the same.
    with torch.autocast('cpu', dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        scores, indices, _ = selection(stock, given)
        assert scores.unique().numel() < TOKENS / 4
        assert torch.equal(selection(fused, given)[1], indices)
        compare(stock, fused, given, rtol=1e-5 if dtype is None else 4 * torch.finfo(dtype).eps)


def test_an_adapter_and_hooks_of_the_class_branch_take_part():
    stock, fused = pair('DINO', classes=80)
    torch.manual_seed(3)
    adapted = Adapted(class_branch(stock))
    adapted.register_forward_pre_hook(lambda module, args: (args[0] * 1.5,))
    adapted.register_forward_hook(lambda module, args, logits: logits - torch.arange(80) / 40)
    plain = selection(fused, inputs())[1]
    for model in (stock, fused):
        model.bbox_head.cls_branches[model.decoder.num_layers] = adapted
    compare(stock, fused, inputs())
    assert not torch.equal(selection(fused, inputs())[1], plain)
    assert all(parameter.grad is not None for parameter in (adapted.down.weight, adapted.up.weight))


MANY = 13204  # V3Det's classes


@pytest.mark.parametrize(
    ('name', 'training'),
    [('DINO', True), ('DINO', False), ('Deformable DETR, two stages', False)],
    ids=['DINO in training', 'DINO', 'Deformable DETR'],
)
def test_nothing_larger_than_a_chunk_is_made(name, training):
    rows = 300  # more than the branch's weight and its gradient, and the logits of the selected tokens
    assert rows > max(WIDTH, 2 * QUERIES)
    largest, peaks = [], []
    for model in pair(name, MANY, rows):
        model.train(training)
        given = inputs()

        def step(model=model, given=given):
            with torch.set_grad_enabled(training):
                found = selection(model, given)[2]
                if training:
                    backward(found)

        with Made() as made:
            step()
        largest.append(max(made.sizes()))
        model.zero_grad()
        given['memory'].grad = None
        peaks.append(peak(step))
    whole, chunk = 2 * TOKENS * MANY, rows * MANY
    assert largest == [whole, chunk]
    # Beside a chunk's logits, in training the gradients of two layers of all classes, and what has no classes.
    assert peaks[0] > 4 * whole
    assert peaks[1] < 4 * chunk + training * 2 * 4 * WIDTH * MANY + 8 * 2**20


def peak(step) -> int:
    """Bytes at the most that a step holds at once, beyond what was held before."""
    held = most = 0
    for size in allocations(step):
        held += size
        most = max(most, held)
    return most


def test_a_detector_has_chunks_of_64_mib_unless_told():
    assert build('DINO', type='FusedDINO').chunk == 64
    assert build('DINO', type='FusedDINO', chunk=0.5).chunk == 0.5


@pytest.mark.parametrize(
    ('chunk', 'wrong', 'sentence'),
    [
        (0, ValueError, 'chunk must be a positive, finite number of MiB, got 0'),
        (-64.0, ValueError, 'got -64.0'),
        (math.inf, ValueError, 'got inf'),
        (math.nan, ValueError, 'got nan'),
        ('64', TypeError, "chunk must be a number of MiB, got '64'"),
        (True, TypeError, 'got True'),
        (None, TypeError, 'got None'),
    ],
)
def test_a_chunk_of_no_size_is_refused(chunk, wrong, sentence):
    init_default_scope('mmdet')
    with pytest.raises(wrong, match=sentence):
        MODELS.build(model_config('DINO', type='FusedDINO', chunk=chunk))


def test_without_a_second_stage_there_is_nothing_to_select():
    init_default_scope('mmdet')
    with pytest.raises(
        ValueError, match='got as_two_stage=False: write as_two_stage=True, or go back to DeformableDETR'
    ):
        MODELS.build(model_config('Deformable DETR', type='FusedDeformableDETR'))


def test_fewer_tokens_than_queries_is_mmdets_error():
    for model in pair('DINO', classes=2, num_queries=TOKENS + 1):
        with pytest.raises(RuntimeError, match='selected index k out of range'):
            selection(model, inputs())
