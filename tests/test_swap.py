"""Swapping a loss: which head takes which, and where configs name a classification loss."""

import inspect

import pytest
from mmdet.models.losses import DDQAuxLoss
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from torch import nn

from focal_plugin.check_swap import pairing, sites
from focal_plugin.check_swap.request import Loss, swapped
from focal_plugin.losses import CLASSES
from tests.variants import VARIANTS

register_all_modules()


def heads_of_mmdet() -> list[type]:
    def takes_a_loss(kind: type) -> bool:
        return any(key in inspect.signature(base.__init__).parameters for base in kind.__mro__ for key in sites.KEYS)

    return [
        kind
        for kind in MODELS.module_dict.values()
        if kind.__module__.startswith('mmdet.models.') and 'Head' in kind.__name__ and takes_a_loss(kind)
    ]


def test_table_knows_every_head_of_mmdet():
    heads = heads_of_mmdet()
    assert len(heads) > 50
    assert [kind.__name__ for kind in heads if pairing.head_of(kind) is None] == []


def test_table_has_no_other_names():
    kinds = {kind.__name__ for kind in [*MODELS.module_dict.values(), DDQAuxLoss]}
    bases = {base.__name__ for kind in heads_of_mmdet() for base in kind.__mro__}
    assert sorted(pairing.HEADS.keys() - kinds - bases) == []
    assert all(head.targets in pairing.TARGETS for head in pairing.HEADS.values())


def loss_of(spec: str, **arguments) -> nn.Module:
    return CLASSES[spec](**VARIANTS[spec].required_by_class(2), **arguments)


def refused(head: str, spec: str, **arguments) -> list[str]:
    return list(pairing.refusals(f'head ({head})', pairing.head_of(head), loss_of(spec, **arguments)))


@pytest.mark.parametrize(
    ('head', 'spec', 'arguments', 'words'),
    [
        (
            'RetinaHead',
            'gaussian_focal',
            {},
            'hands over integer labels; FusedGaussianFocalLoss is a loss of heat maps',
        ),
        ('CenterNetHead', 'focal', dict(activated=True), 'hands over a heat map'),
        ('CenterNetHead', 'gaussian_focal', dict(from_logits=True), 'write from_logits=False'),
        ('GFLHead', 'focal', {}, 'takes no qualities. Those that do: '),
        ('GFLHead', 'quality_focal', dict(activated=True), 'write activated=False'),
        ('TOODHead', 'quality_focal', {}, 'write activated=True'),
        ('TOODHead', 'varifocal', {}, 'hands over probabilities, FusedVarifocalLoss takes logits only'),
        ('DINOHead', 'softmax_focal', {}, 'applies a sigmoid'),
        ('VFNetHead', 'softmax_focal', {}, 'takes labels only'),
        ('Shared2FCBBoxHead', 'focal', {}, 'would train the background as a class'),
        ('GroundingDINOHead', 'varifocal', {}, 'raises NotImplementedError for a QualityFocalLoss'),
        ('ATSSVLFusionHead', 'quality_focal', {}, 'reduces rows, and there are none'),
        ('PAAHead', 'matchability_aware', {}, 'sums unreduced losses over the classes itself'),
        ('LADHead', 'quality_focal', {}, 'sums unreduced losses over the classes itself'),
        ('YOLACTHead', 'focal', {}, 'picks rows by their unreduced loss'),
        ('SSDHead', 'focal', {}, 'hard negative mining is written in its code'),
        ('AutoAssignHead', 'focal', {}, 'loss_cls has no effect'),
        ('FreeAnchorRetinaHead', 'focal', {}, 'loss_cls has no effect'),
        ('Mask2FormerHead', 'focal', {}, 'class_weight'),
    ],
)
def test_what_does_not_fit_is_refused(head, spec, arguments, words):
    sentences = refused(head, spec, **arguments)
    assert any(words in sentence for sentence in sentences), sentences
    assert all(sentence.startswith(f'head ({head}) ') for sentence in sentences)


@pytest.mark.parametrize(
    ('head', 'spec', 'arguments'),
    [
        *(('RetinaHead', name, {}) for name, variant in VARIANTS.items() if variant.labelled),
        ('CenterNetUpdateHead', 'gaussian_focal', {}),
        ('TOODHead', 'quality_focal', dict(activated=True)),
        ('DDQAuxLoss', 'quality_focal', dict(activated=True)),
        ('RTMDetInsHead', 'varifocal', {}),
        ('LDHead', 'iou_aware_bce', {}),
        ('VFNetHead', 'asymmetric', {}),
        ('DINOHead', 'matchability_aware', {}),
        ('GroundingDINOHead', 'poly_focal', {}),
        ('DIIHead', 'focal', {}),
        ('ConvFCBBoxHead', 'softmax_focal', {}),
        ('YOLACTHead', 'softmax_focal', {}),
    ],
)
def test_what_fits_is_not_refused(head, spec, arguments):
    if head == 'DDQAuxLoss':
        assert list(pairing.refusals('aux', pairing.head_of(DDQAuxLoss), loss_of(spec, **arguments))) == []
    else:
        assert refused(head, spec, **arguments) == []


def test_every_classification_loss_is_found_and_swapped():
    old = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
    model = ConfigDict(
        rpn_head=dict(type='RPNHead', loss_cls=dict(old), loss_bbox=dict(type='L1Loss')),
        roi_head=dict(bbox_head=[dict(type='DIIHead', loss_cls=dict(old)), dict(type='DIIHead', loss_cls=dict(old))]),
        detector=dict(bbox_head=dict(type='CenterNetHead', loss_center_heatmap=dict(type='GaussianFocalLoss'))),
    )
    loss = Loss('', 'FusedPolyFocalLoss', dict(epsilon=0.5, gamma=1.0))
    new = swapped(Config(dict(model=model)), loss, '').model
    assert [(site.path, site.head) for site in sites.of_model(new)] == [
        ('rpn_head.loss_cls', 'RPNHead'),
        ('roi_head.bbox_head.0.loss_cls', 'DIIHead'),
        ('roi_head.bbox_head.1.loss_cls', 'DIIHead'),
        ('detector.bbox_head.loss_center_heatmap', 'CenterNetHead'),
    ]
    written = dict(type='FusedPolyFocalLoss', use_sigmoid=True, gamma=1.0, alpha=0.25, epsilon=0.5)
    assert [site.loss for site in sites.of_model(new)][:3] == [written] * 3
    assert new.rpn_head.loss_bbox == dict(type='L1Loss') and model.rpn_head.loss_cls == old
