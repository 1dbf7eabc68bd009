"""Samplers that choose rows by their classification loss, and the losses that they can't read."""

import pytest
import torch
from mmdet.models.task_modules.samplers import OHEMSampler, ScoreHLRSampler
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from focal_plugin import mining
from focal_plugin.hooks import findings
from focal_plugin.losses import CLASSES, FusedFocalCustomLoss, FusedSoftmaxFocalLoss
from tests.variants import VARIANTS

pytest_plugins = ['tests.swap_tool']

register_all_modules()

FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
PISA = 'pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py'
CASCADE = 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
CUSTOM, SOFTMAX = 'FusedFocalCustomLoss,use_sigmoid=True,num_classes=80', 'FusedSoftmaxFocalLoss,use_sigmoid=False'
SAMPLERS = {
    'OHEM': dict(type='OHEMSampler'),
    'score-HLR': dict(type='ScoreHLRSampler'),
    'OHEM as class': dict(type=OHEMSampler),
    'OHEM of negatives': dict(
        type='CombinedSampler', pos_sampler=dict(type='RandomSampler'), neg_sampler=dict(type='OHEMSampler')
    ),
}


def mined(tool, path: str, sampler: dict) -> Config:
    config = tool.small(path)
    stages = config.model.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler = dict(sampler, num=32, pos_fraction=0.25, add_gt_as_proposals=True)
    return config


@pytest.mark.parametrize('name', SAMPLERS)
@pytest.mark.parametrize(('path', 'heads'), [(FASTER, 1), (CASCADE, 3)], ids=['one head', 'a cascade'])
def test_a_loss_per_logit_is_refused_at_every_head(tool, path, heads, name):
    config = mined(tool, path, SAMPLERS[name])
    after = tool.request.swapped(config, tool.request.parse_loss(CUSTOM), 'roi_head.bbox_head').model
    sentences = [sentence for sentence in findings(tool.steps.build(after)) if 'one per logit' in sentence]
    kind = 'ScoreHLRSampler' if name == 'score-HLR' else 'OHEMSampler'
    assert len(sentences) == heads
    assert all(f'has its rows chosen by {kind}' in sentence for sentence in sentences)
    assert all("write sampler=dict(type='RandomSampler', ...)" in sentence for sentence in sentences)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['OHEM', 'score-HLR', 'OHEM of negatives'])
def test_a_loss_per_row_trains(tool, name):
    # Only PISA's head takes what score-HLR returns.
    config = tool.small(PISA) if name == 'score-HLR' else mined(tool, FASTER, SAMPLERS[name])
    report = tool.check(config, SOFTMAX, 'roi_head.bbox_head')
    assert report.refusals == [] and report.steps[1].losses['loss_cls'] > 0


@pytest.mark.slow
def test_the_check_refuses_what_the_hook_does(tool):
    report = tool.check(mined(tool, FASTER, SAMPLERS['OHEM']), CUSTOM, 'roi_head.bbox_head')
    assert any('has its rows chosen by OHEMSampler' in sentence for sentence in report.refusals)
    report = tool.check(tool.small(PISA), CUSTOM, 'roi_head.bbox_head')
    assert any('has its rows chosen by ScoreHLRSampler' in sentence for sentence in report.refusals)


@pytest.mark.slow
def test_the_sampler_of_proposals_is_not_that_of_boxes(tool):
    report = tool.check(mined(tool, FASTER, SAMPLERS['OHEM']), 'FusedFocalLoss,use_sigmoid=True', 'rpn_head')
    assert not any('OHEM' in sentence for sentence in report.refusals)


@pytest.mark.parametrize('sampler', ['OHEMSampler', 'ScoreHLRSampler'])
def test_a_dense_head_that_does_not_build_with_it_is_looked_up_in_the_config(tool, sampler):
    config = tool.boards()
    config.model.train_cfg.sampler = dict(type=sampler, num=32, pos_fraction=0.25)
    report = tool.check(config, 'FusedFocalLoss')
    assert any(f'bbox_head (RetinaHead) has its rows chosen by {sampler}' in sentence for sentence in report.refusals)


def test_which_losses_a_sampler_reads():
    """OHEM reads any loss of one number per row, score-HLR a softmax's alone."""
    read = {OHEMSampler: set(), ScoreHLRSampler: set()}
    for name, kind in CLASSES.items():
        loss = kind(**VARIANTS[name].required_by_class(2))
        rows = VARIANTS[name].labelled and loss(torch.zeros(5, 2), torch.zeros(5).long(), reduction_override='none')
        for sampler, names in read.items():
            if not list(mining.refusals('head', sampler, loss)):
                assert rows.shape == (5,)
                names.add(name)
    assert read[ScoreHLRSampler] == {name for name, variant in VARIANTS.items() if not variant.point}
    assert read[OHEMSampler] == {name for name, kind in CLASSES.items() if kind.spec.per_row}


def test_the_hardest_rows_are_chosen_by_a_loss_per_row_and_not_by_one_per_logit():
    """OHEMSampler takes the largest of what comes back: rows of a vector, channels of a matrix."""
    logits = torch.zeros(2000, 80)
    logits[torch.arange(2000), torch.arange(2000) % 80] = torch.linspace(-4, 4, 2000)
    labels = torch.full((2000,), 80)

    def chosen(loss, logits) -> set[int]:
        return {*loss(logits, labels, reduction_override='none').topk(48)[1].flatten().tolist()}

    padded = torch.cat([logits, logits.new_zeros(2000, 1)], 1)
    assert chosen(FusedSoftmaxFocalLoss(), padded) == {*range(1952, 2000)}
    assert chosen(FusedFocalCustomLoss(num_classes=80), logits) <= {*range(80)}


def test_a_head_that_mines_nothing_passes():
    head = dict(type='Shared2FCBBoxHead', num_classes=4, loss_cls=dict(type='FusedFocalCustomLoss', num_classes=4))
    assert not any('rows chosen' in sentence for sentence in findings(MODELS.build(head)))
