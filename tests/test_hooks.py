"""The check at the start of training: each trap of swapping a loss gives its sentence, a sound model none."""

import copy
from pathlib import Path
from types import SimpleNamespace

import mmdet
import pytest
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from focal_plugin import config_dir, hooks
from focal_plugin.hooks import FusedLossCheckHook, findings, notes

register_all_modules()


def retinanet(**head):
    config = Config.fromfile(f'{config_dir()}/retinanet/retinanet_r18_fpn_boards_fused-focal.py')
    model = copy.deepcopy(config.model)
    for name, value in head.items():  # update() would merge into what stands there
        model.bbox_head[name] = value
    return MODELS.build(model)


def test_a_sound_model_passes():
    assert list(findings(retinanet(), dataset_classes=4)) == []


def test_use_sigmoid_left_out():
    """mmdet#3650, #5717: the head builds a softmax of C + 1 channels, and the loss becomes something else."""
    (sentence,) = findings(retinanet(loss_cls=dict(type='FusedFocalLoss')), 4)
    assert 'softmax of 5 channels' in sentence
    assert "loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True" in sentence


def test_classes_of_another_number():
    (sentence,) = findings(retinanet(num_classes=80), dataset_classes=4)
    assert 'num_classes=80, the training set 4 classes' in sentence


def test_panoptic_fpn_has_boxes_of_things_alone():
    model = get_config('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py').model
    model.backbone.init_cfg = None
    model.roi_head.bbox_head.loss_cls = dict(type='FusedSoftmaxFocalLoss', use_sigmoid=False)
    assert list(findings(MODELS.build(model), dataset_classes=133)) == []


OF_MMDET3D = {
    'Anchor3DHead, whose channels are those of all anchors': dict(
        num_classes=3, num_anchors=6, cls_out_channels=18, use_sigmoid_cls=True
    ),
    'CenterHead, whose classes are of several tasks': dict(num_classes=[1, 2, 2]),
}


@pytest.mark.parametrize('attributes', OF_MMDET3D.values(), ids=OF_MMDET3D)
def test_heads_of_mmdet3d_pass(attributes):
    head = nn.Module()
    vars(head).update(attributes)
    head.loss_cls = MODELS.build(dict(type='FusedFocalLoss', use_sigmoid=True))
    assert list(findings(head, dataset_classes=3)) == []


@pytest.mark.parametrize('classes', (1, 3), ids=('one class', 'several'))
def test_a_channel_for_the_background(classes):
    head = nn.Module()
    head.num_classes, head.cls_out_channels = classes, classes + 1
    head.loss_cls = MODELS.build(dict(type='FusedFocalLoss', use_sigmoid=True))
    [sentence] = findings(head)
    assert f'{classes + 1} class channels for num_classes={classes}' in sentence


def test_random_sampler():
    model = retinanet()
    model.bbox_head.sampler = RandomSampler(256, 0.5)
    (sentence,) = findings(model, 4)
    assert "sampler=dict(type='PseudoSampler')" in sentence


def test_box_head():
    head = MODELS.build(
        dict(type='Shared2FCBBoxHead', num_classes=4, loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True))
    )
    sentences = list(findings(head, 4))
    assert any('Keep CrossEntropyLoss' in sentence for sentence in sentences)


def test_a_box_head_that_does_not_ask_the_loss():
    """SABL's keeps a channel for the background and a softmax, whatever the loss says."""
    loss_cls = dict(type='FusedFocalCustomLoss', num_classes=4)
    heads = [
        MODELS.build(dict(type=kind, num_classes=4, loss_cls=loss_cls)) for kind in ('Shared2FCBBoxHead', 'SABLHead')
    ]
    assert list(findings(heads[0], 4)) == []
    (sentence,) = findings(heads[1], 4)
    assert sentence.endswith('Keep CrossEntropyLoss there, or use a softmax loss')


def test_box_head_that_follows_the_loss():
    """The head of Sparse R-CNN has an fc_cls too, of as many channels as its loss wants."""
    head = MODELS.build(dict(type='DIIHead', num_classes=4, loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True)))
    assert list(findings(head, 4)) == []


def test_proposals_have_one_class():
    head = dict(type='FCOSHead', num_classes=1, in_channels=32, feat_channels=32)
    head = MODELS.build(dict(head, loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True)))
    assert any('num_classes=1, the training set 4 classes' in sentence for sentence in findings(head, 4))
    assert list(findings(nn.ModuleDict(dict(rpn_head=head)), 4)) == []


def test_proposals_have_no_classes():
    """mmdet's RPN calls its head a bbox_head, and gives it one class."""
    config = Config.fromfile(Path(mmdet.__file__).parent / '.mim/configs/rpn/rpn_r50_fpn_1x_coco.py').model
    config.backbone.init_cfg = None
    config.rpn_head.loss_cls = dict(type='FusedFocalLoss', use_sigmoid=True)
    config.train_cfg.rpn.sampler = dict(type='PseudoSampler')
    assert list(findings(MODELS.build(config), 80)) == []


def test_a_loss_that_sums_over_processes_is_called_in_each():
    loss = MODELS.build(dict(type='FusedEqualizedFocalLoss', use_sigmoid=True, num_classes=4))
    head = MODELS.build(dict(type='YOLOXHead', num_classes=4, in_channels=8, feat_channels=8))
    head.loss_cls = loss
    assert any('does not call its loss where a batch has no positives' in sentence for sentence in findings(head, 4))


@pytest.mark.parametrize(('cost', 'fits'), [('FocalLossCost', True), ('ClassificationCost', False)])
def test_matching_by_a_softmax(cost, fits):
    assigner = dict(type='HungarianAssigner', match_costs=[dict(type=cost, weight=2.0)])
    loss_cls = dict(type='FusedFocalLoss', use_sigmoid=True)
    head = MODELS.build(dict(type='DETRHead', num_classes=4, loss_cls=loss_cls, train_cfg=dict(assigner=assigner)))
    sentences = list(findings(head, 4))
    assert sentences == [] if fits else 'write FocalLossCost in match_costs' in sentences[0]


def test_what_a_head_hands_over():
    """focal_plugin.check_swap.pairing knows each head; its sentences come with the others."""
    sentences = list(findings(retinanet(loss_cls=dict(type='FusedGaussianFocalLoss', use_sigmoid=True)), 4))
    assert any('is a loss of heat maps' in sentence for sentence in sentences)


@pytest.mark.parametrize('kind', ['TOODHead', 'FusedTOODHead'])
def test_the_loss_of_the_first_epochs(kind):
    """TOOD hands probabilities to a loss of labels then, and a config that replaces it may lose mmdet's activated=True."""
    config = Config.fromfile(f'{config_dir()}/quality_focal/tood_r18_fpn_boards_fused-quality-focal.py')
    head = config.model.bbox_head
    head.update(type=kind)
    assert list(findings(MODELS.build(copy.deepcopy(config.model)), 4)) == []
    head.initial_loss_cls = dict(type='FusedFocalLoss', use_sigmoid=True)
    (sentence,) = findings(MODELS.build(config.model), 4)
    assert 'in its first epochs hands over probabilities, FusedFocalLoss takes logits: write activated=True' in sentence


def test_inherited_values_are_noted_once():
    loss_cls = dict(type='FusedQualityFocalLoss', use_sigmoid=True, beta=1.0, gamma=2.0)
    with pytest.warns(UserWarning, match='does not use gamma'):
        model = nn.ModuleDict(dict(a=retinanet(loss_cls=loss_cls), b=retinanet(loss_cls=loss_cls)))
    values, ignored, quality = notes(model)
    names = 'a.bbox_head (RetinaHead), b.bbox_head (RetinaHead): FusedQualityFocalLoss '
    assert values.startswith(f'{names}has beta=1.0 (default 2.0); ')
    assert ignored == f'{names}does not use gamma=2.0'
    assert quality.endswith('each positive has quality 1')


def test_defaults_are_not_noted():
    assert list(notes(retinanet())) == []
    assert list(notes(retinanet(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2, alpha=0.25)))) == []


def test_notes_are_logged(monkeypatch):
    logged = []
    monkeypatch.setattr(hooks, 'print_log', lambda text, logger: logged.append(text))
    model = retinanet(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, alpha=[0.1, 0.2, 0.3, 0.4]))
    dataset = SimpleNamespace(metainfo=dict(classes=('a', 'b', 'c', 'd')))
    FusedLossCheckHook().before_train(SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=dataset)))
    (line,) = logged
    assert 'FusedFocalLoss has alpha=[0.1, 0.2, 0.3, 0.4] (default 0.25)' in line


def test_stops_training():
    dataset = SimpleNamespace(metainfo=dict(classes=('a', 'b')))
    runner = SimpleNamespace(model=retinanet(), train_dataloader=SimpleNamespace(dataset=dataset))
    with pytest.raises(ValueError, match='num_classes=4, the training set 2 classes'):
        FusedLossCheckHook().before_train(runner)
