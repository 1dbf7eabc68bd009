"""The forms that a config may have: classes as types, mmengine's pure Python, models alone, lists of data sets."""

from pathlib import Path

import mmdet
import pytest
from mmdet.datasets import CocoDataset
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.dataset import ConcatDataset
from mmengine.model import PretrainedInit
from mmengine.runner import IterBasedTrainLoop

from focal_plugin.check_swap import pairing, sites

pytest_plugins = ['tests.swap_tool']

register_all_modules()

BASE_MODELS = Path(mmdet.__file__).parent / '.mim/configs/_base_/models'

PURE_PYTHON = """
from mmdet.datasets import CocoDataset
from mmdet.models.backbones import ResNet
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.detectors import RetinaNet
from mmdet.models.losses import FocalLoss, L1Loss
from mmdet.models.necks import FPN
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, PseudoSampler
from mmengine.config import read_base
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.model import PretrainedInit

absent = dict(type=PretrainedInit, checkpoint='absent.pth')
anchors = dict(type=AnchorGenerator, octave_base_scale=4, scales_per_octave=3, ratios=[1.0], strides=[8, 16, 32])
focal = dict(type=FocalLoss, use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18, out_indices=(1, 2, 3), init_cfg=absent),
    neck=dict(type=FPN, in_channels=[128, 256, 512], out_channels=16, num_outs=3),
    bbox_head=dict(
        type=RetinaHead,
        num_classes=80,
        in_channels=16,
        feat_channels=16,
        anchor_generator=anchors,
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=focal,
        loss_bbox=dict(type=L1Loss),
    ),
    train_cfg=dict(
        assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
        sampler=dict(type=PseudoSampler),
        allowed_border=-1,
        pos_weight=-1,
    ),
)
parts = [dict(type=CocoDataset), dict(type=CocoDataset, metainfo=dict(classes=('a', 'b')))]
whole = dict(type=RepeatDataset, times=2, dataset=dict(type=ConcatDataset, datasets=parts))
train_dataloader = dict(batch_size=2, dataset=whole)
"""


def test_a_config_in_pure_python_is_reported_on(tool, tmp_path):
    file = tmp_path / 'config.py'
    file.write_text(PURE_PYTHON)
    report = tool.check(tool.request.read_config(str(file), None), 'FusedFocalLoss')
    (sentence,) = report.refusals
    assert 'num_classes=80, part 1 of the training set 80 classes, part 2 of the training set 2 classes' in sentence
    assert report.steps[1].losses == pytest.approx(report.steps[0].losses, rel=1e-5)
    assert "-            type='mmdet.models.losses.focal_loss.FocalLoss'," in report.diff
    assert "+            type='FusedFocalLoss'," in report.diff


def as_classes(node):
    """The same config with a class for each type that names one of mmdet's models."""
    if isinstance(node, dict):
        kind = MODELS.get(node['type']) if isinstance(node.get('type'), str) else None
        return ConfigDict({key: as_classes(value) for key, value in node.items()} | (dict(type=kind) if kind else {}))
    return [*map(as_classes, node)] if isinstance(node, list) else node


@pytest.mark.slow
def test_classes_as_types_are_as_their_names(tool):
    """A config that Python code made, with no file that could be read again."""
    named, classes = tool.boards(), tool.boards()
    classes.model = as_classes(classes.model)
    classes.train_dataloader.dataset.type = CocoDataset
    assert classes.model.bbox_head.type is RetinaHead
    reports = [tool.check(config, 'FusedVarifocalLoss') for config in (named, classes)]
    assert reports[0].refusals == reports[1].refusals == []
    assert reports[0].notes == reports[1].notes != []
    assert reports[0].heads == reports[1].heads
    assert reports[0].steps[1].losses == reports[1].steps[1].losses


class UnregisteredHead(RetinaHead):
    """A user's own, which no registry knows; the config holds the class."""


def test_the_table_knows_a_class_that_no_registry_does():
    loss = dict(type=FocalLoss, use_sigmoid=True)
    (site,) = sites.of_model(ConfigDict(bbox_head=dict(type=UnregisteredHead, loss_cls=loss)))
    assert site.head == 'UnregisteredHead'
    assert pairing.head_of(site.kind) is pairing.HEADS['AnchorHead']


def test_a_head_with_a_loss_of_its_own_is_found_by_its_class():
    ssd = MODELS.get('SSDHead')
    (sentence,) = sites.fixed(dict(bbox_head=dict(type=type('Mine', (ssd,), {}))))
    assert sentence.startswith('bbox_head (Mine) keeps its loss')


def test_weights_from_a_file_are_left_out_in_every_form(tool):
    other = dict(type='Kaiming', layer='Conv2d')
    for file in (
        dict(type='Pretrained', checkpoint='a.pth'),
        dict(type=PretrainedInit, checkpoint='a.pth'),
    ):
        config = dict(
            a=dict(init_cfg=file), b=dict(init_cfg=[file, other]), c=dict(init_cfg=other), d=dict(init_cfg=None)
        )
        tool.steps.strip(config)
        assert config == dict(
            a=dict(init_cfg=None), b=dict(init_cfg=[other]), c=dict(init_cfg=other), d=dict(init_cfg=None)
        )


# What a config may lack.


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    'loader',
    ['absent', None, {}, dict(batch_size=2), dict(dataset=None), dict(dataset=dict(type='OfNoRegistry'))],
    ids=str,
)
def test_a_config_without_data_is_reported_on(tool, loader):
    config = tool.boards()
    if loader == 'absent':
        config = Config({key: value for key, value in config.items() if not key.endswith('_dataloader')})
    else:
        config.train_dataloader = loader
    report = tool.check(config, 'FusedVarifocalLoss')
    assert report.refusals == [] and report.steps[1].losses['loss_cls'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('path', ['retinanet_r50_fpn', 'mask-rcnn_r50_fpn'])
def test_a_model_alone_is_reported_on(tool, path):
    """mmdet's own _base_/models; without data the model tells whether a step needs masks."""
    report = tool.check(tool.small(f'_base_/models/{path}.py'), 'FusedFocalLoss,use_sigmoid=True')
    assert report.steps is not None
    assert ('loss_mask' in report.steps[1].losses) is path.startswith('mask')
    assert any('rpn_head' in sentence for sentence in report.refusals) is path.startswith('mask')


@pytest.mark.slow
@pytest.mark.parametrize('path', sorted(BASE_MODELS.glob('*.py')), ids=lambda path: path.stem)
def test_every_base_model_of_mmdet_is_reported_on(tool, path):
    report = tool.check(tool.request.read_config(str(path), None), 'FusedFocalLoss,use_sigmoid=True')
    assert report.refusals or report.steps


def test_concatenated_and_repeated_data_sets_are_compared(tool):
    config = tool.boards()
    part = config.train_dataloader.dataset
    other = dict(part, metainfo=dict(classes=('a', 'b', 'c')))
    parts = dict(type=ConcatDataset, datasets=[part, other], ignore_keys='classes')
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=parts)
    (sentence,) = tool.check(config, 'FusedFocalLoss').refusals
    assert 'part 1 of the training set 4 classes, part 2 of the training set 3 classes' in sentence


def test_a_string_as_classes_is_refused(tool):
    config = tool.boards(num_classes=1)
    config.train_dataloader.dataset.metainfo = dict(classes='person')
    (sentence,) = tool.check(config, 'FusedFocalLoss').refusals
    assert "write metainfo=dict(classes=('person',))" in sentence


def test_validation_of_other_classes_is_noted(tool):
    config = tool.boards()
    config.val_dataloader.dataset.metainfo = dict(classes=('x',))
    assert any("'x' in the validation set" in note for note in tool.check(config, 'FusedFocalLoss').notes)


# Comparing losses trains, so a config needs more there.


@pytest.fixture(scope='module')
def compare(tool):
    from tools.training import compare_losses

    return compare_losses


@pytest.mark.parametrize('lacks', ['model', 'train_dataloader', 'train_cfg', 'optim_wrapper'])
def test_a_comparison_says_what_the_config_lacks(tool, compare, tmp_path, lacks):
    config = tool.boards()
    config[lacks] = None
    file = tmp_path / 'config.py'
    file.write_text(config.pretty_text)
    with pytest.raises(tool.request.UsageError, match=f'the config has no {lacks}'):
        tool.request.read_config(str(file), None, compare.TRAINING)


def test_a_comparison_writes_classes_down(tool, compare, tmp_path):
    config = tool.boards()
    config.model = as_classes(config.model)
    config.train_cfg = dict(type=IterBasedTrainLoop, max_iters=7, val_interval=3)
    trained = compare.training_config(config, tool.request.parse_loss('FusedFocalLoss'), '', None, None)
    file = tmp_path / 'config.py'
    file.write_text(trained.pretty_text)
    read = Config.fromfile(file)
    assert read.train_cfg == dict(type='ResumableTrainLoop', seed=0, max_iters=7, val_every=3)
    assert MODELS.get(read.model.bbox_head.type) is RetinaHead
