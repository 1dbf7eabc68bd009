"""What no sigmoid variant takes: scores, numbers, flags and names, each refused with the remedy."""

import pytest
import torch

import focal_plugin
from focal_plugin import functional
from focal_plugin.math import SPECS
from focal_plugin.math.spec import REQUIRED
from tests.oracle.check_variants import ELEMENTWISE, target_of
from tests.oracle.inputs import C
from tests.variants import VARIANTS

PAIR = (torch.zeros(2, dtype=torch.long), torch.ones(2))
BAD = {
    'scores of another shape': ((PAIR[0], torch.ones(2, C)), ValueError, r'scores must have the shape \(2,\).*\(2, 5\)'),
    'too few scores': ((PAIR[0], torch.ones(1)), ValueError, r'scores must have the shape \(2,\).*got \(1,\)'),
    'scores first': (PAIR[::-1], TypeError, r'integer.*got torch\.float32.*'),
    'complex scores': ((PAIR[0], torch.ones(2, dtype=torch.complex64)), TypeError, r'scores must be real.*complex64'),
    'scores as a list': ((PAIR[0], [1.0, 1.0]), TypeError, r'scores must be a tensor, got list'),
    'three of them': ((*PAIR, PAIR[1]), (TypeError, ValueError), r'\(labels, scores\)'),
    'scores elsewhere': ((PAIR[0], PAIR[1].to('meta')), ValueError, r'scores.*to\(pred\.device\)'),
    'a label above C': ((PAIR[0] + C + 1, PAIR[1]), ValueError, r'label 6 is outside \[0, 5\].*num_classes'),
}  # fmt: skip


@pytest.mark.parametrize('name', [name for name in ELEMENTWISE if VARIANTS[name].scored])
@pytest.mark.parametrize('target, error, message', BAD.values(), ids=BAD)
def test_bad_scores(name, target, error, message):
    with pytest.raises(error, match=message):
        functional.FUNCTIONS[name](torch.zeros(2, C), target)


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize('name', [name for name in ELEMENTWISE if VARIANTS[name].scored])
def test_the_quality_of_equal_boxes_in_half_precision(name, dtype):
    """Under autocast DETR's kin have boxes in it, and their IoU with the annotations is in float32, and beyond 1.

    The first box has an area that is subnormal in float16.
    """
    from mmdet.structures.bbox import bbox_overlaps

    corners, sizes = torch.rand(2, 4000, 2)
    boxes = torch.cat([corners, corners + sizes], dim=1)
    boxes[0] = torch.tensor([0.0, 0.0, 0.00094843, 0.00109959])
    quality = bbox_overlaps(boxes.to(dtype), boxes, is_aligned=True)
    assert quality.dtype == torch.float32 and quality.max() > (1.02 if dtype == torch.float16 else 1.003)
    pred, labels = torch.randn(4000, C), torch.randint(0, C + 1, (4000,))
    found, expected = (functional.FUNCTIONS[name](pred, (labels, each)) for each in (quality, quality.clamp(max=1)))
    assert torch.equal(found, expected)


@pytest.mark.parametrize('name', [name for name in ELEMENTWISE if VARIANTS[name].scored])
def test_scores_that_are_no_quality(name):
    for score, ends in ((1.04, r'0\.5 to 1\.04'), (-0.001, r'-0\.001 to 0\.5')):
        with pytest.raises(ValueError, match=rf'scores of labels are values in \[0, 1\], got values from {ends}'):
            functional.FUNCTIONS[name](torch.zeros(2, C), (PAIR[0], torch.tensor([0.5, score])))


@pytest.mark.parametrize('name', [name for name in ELEMENTWISE if VARIANTS[name].dense])
def test_a_dense_target_above_1_is_no_quality(name):
    with pytest.raises(ValueError, match=r'a dense target holds values in \[0, 1\], got values from 1\.02 to 1\.02'):
        functional.FUNCTIONS[name](torch.zeros(2, C), torch.full((2, C), 1.02), **VARIANTS[name].arguments(C))


@pytest.mark.parametrize('name', [name for name in ELEMENTWISE if not VARIANTS[name].scored])
def test_scores_where_they_mean_nothing(name):
    with pytest.raises((TypeError, ValueError), match=r'scores|tuple'):
        functional.FUNCTIONS[name](torch.zeros(2, C), PAIR, **VARIANTS[name].arguments(C))


@pytest.mark.parametrize(
    'name, value, message',
    [
        (name, (key := p.name, value), message)
        for name in ELEMENTWISE
        for p in SPECS[name].parameters
        if not p.choices and not isinstance(p.default, bool) and p.default is not REQUIRED
        for value, message in (
            *(() if p.optional else [(p.low - 0.5, 'must be (at least|above|in)')]),
            (p.high + 1, 'must be (at least|above|in)'),
            (float('nan'), 'must be'),
        )
    ],
)
def test_parameters_outside_their_range(name, value, message):
    key, bad = value
    with pytest.raises(ValueError, match=f'{key} {message}.*got'):
        functional.FUNCTIONS[name](
            torch.zeros(2, C), target_of(name, (2, C)), **(VARIANTS[name].arguments(C) | {key: bad})
        )


def test_choices_flags_and_required_arguments():
    pred, target = torch.zeros(2, C), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"normalize must be 'none' or 'batch', got 'image'"):
        functional.position_supervised_loss(pred, target, normalize='image')
    with pytest.raises((TypeError, ValueError), match=r'detach_weight must be True or False, got'):
        functional.varifocal_loss(pred, target, detach_weight='no')
    with pytest.raises(TypeError, match=r'samples_per_class must be given'):
        functional.class_balanced_focal_loss(pred, target)
    with pytest.raises(ValueError, match=r'samples_per_class holds 3 numbers for logits of 5 classes'):
        functional.class_balanced_focal_loss(pred, target, samples_per_class=[1, 2, 3])
    with pytest.raises(TypeError, match=r"no argument 'gama': did you mean 'gamma'"):
        functional.poly_focal_loss(pred, target, gama=2)


def test_a_forced_backend_gives_no_gradient_of_scores():
    score = torch.rand(2, requires_grad=True)
    with focal_plugin.use_backend('native'), pytest.raises(ValueError, match='gives no gradient of'):
        functional.quality_focal_loss(torch.zeros(2, C), (torch.zeros(2, dtype=torch.long), score))
