"""The check at the start of training: each trap of swapping a loss gives its sentence, a sound model none."""

import copy
from types import SimpleNamespace

import pytest
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from focal_plugin import config_dir
from focal_plugin.hooks import FusedLossCheckHook, findings

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


def test_stops_training():
    dataset = SimpleNamespace(metainfo=dict(classes=('a', 'b')))
    runner = SimpleNamespace(model=retinanet(), train_dataloader=SimpleNamespace(dataset=dataset))
    with pytest.raises(ValueError, match='num_classes=4, the training set 2 classes'):
        FusedLossCheckHook().before_train(runner)
