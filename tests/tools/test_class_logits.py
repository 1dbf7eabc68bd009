"""The table of class logits: what is computed for it is what heads make, and what a training step holds."""

from types import SimpleNamespace

import mmcv.ops.focal_loss
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from focal_plugin.cut import OF_A_GPU
from tests.configs import FOLDER, read, take_stock
from tools.benchmarks.bytes_moved import OnGPU
from tools.benchmarks.measure import allocated_bytes
from tools.maintain import class_logits

RETINANET = FOLDER / 'cut/retinanet_r50_fpn_1x_objects365v2_fused-head-cut.py'
FCOS = FOLDER / 'cut/fcos_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x_fused-head-cut.py'
SIDE, CLASSES, CHANNELS = 256, 1000, 8
NO_KERNELS = SimpleNamespace(
    sigmoid_focal_loss_forward=lambda *tensors, **parameters: None,
    sigmoid_focal_loss_backward=lambda *tensors, **parameters: None,
)


def step(head):
    """A training step of the class convolution and the loss, and of as good as nothing else."""
    features = [torch.randn(2, CHANNELS, *[-(-SIDE // stride)] * 2) for stride, _ in head.prior_generator.strides]
    objects = InstanceData(bboxes=torch.tensor([[8.0, 8, 60, 90], [70, 20, 250, 220]]), labels=torch.tensor([0, 7]))
    metas = dict(img_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=metas, gt_instances=objects)] * 2

    def run():
        losses = head.loss(features, samples)['loss_cls']
        (sum(losses) if isinstance(losses, list) else losses).backward()

    return run


def small(path, **changes):
    """A config's head, of which nothing but the logits is large."""
    config = read(path)
    few = dict(in_channels=CHANNELS, feat_channels=CHANNELS, stacked_convs=0, train_cfg=config.model.train_cfg)
    config.model.bbox_head.update(num_classes=CLASSES, **few, **changes)
    return config.model


def held(head, monkeypatch) -> float:
    """The most that a step holds, in units of the logits."""
    run = step(head)
    run()  # what is kept, anchors for one, is made here
    for parameter in head.parameters():
        parameter.grad = None
    monkeypatch.setattr(class_logits, 'HEIGHT', SIDE)
    monkeypatch.setattr(class_logits, 'WIDTH', SIDE)
    return allocated_bytes(run) / (4 * class_logits.logits(head))


@pytest.mark.parametrize('path', [RETINANET, FCOS], ids=['RetinaNet', 'FCOS'])
def test_the_fused_head_holds_what_is_said(path, monkeypatch):
    head = MODELS.build(small(path, cut=False).bbox_head)
    assert held(head, monkeypatch) == pytest.approx(class_logits.FUSED, abs=0.15)


def test_the_stock_retina_head_holds_what_is_said_on_a_gpu(monkeypatch):
    """In the place of mmcv's CUDA kernels nothing runs, on the memory that its Python code makes for them."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(mmcv.ops.focal_loss, 'ext_module', NO_KERNELS)
    model = small(RETINANET)
    take_stock(model.bbox_head)
    model.bbox_head.loss_cls.type = 'FocalLoss'
    head = MODELS.build(model.bbox_head)
    with OnGPU():
        assert held(head, monkeypatch) == pytest.approx(class_logits.stock(head), abs=0.15)


def test_the_stock_fcos_head_of_v3det_holds_what_is_said(monkeypatch):
    model = small(FCOS)
    take_stock(model.bbox_head)
    model.bbox_head.loss_cls = dict(type='FocalCustomLoss', use_sigmoid=True, num_classes=CLASSES)
    head = MODELS.build(model.bbox_head)
    assert held(head, monkeypatch) == pytest.approx(class_logits.stock(head), abs=0.15)


def test_lines_are_of_the_configs_numbers():
    lines = [[cell.strip() for cell in line.split('|')[1:-1]] for line in class_logits.table().splitlines()[2:]]
    places = sum(-(-800 // stride) * -(-1344 // stride) for stride in (8, 16, 32, 64, 128))
    for data, detector, classes, size, *most, cut in lines:
        anchors = 9 if 'RetinaNet' in detector else 1
        assert float(size) == pytest.approx(2 * places * anchors * int(classes) * 4e-9, rel=0.01), data
        assert float(size) < float(most[1]) < float(most[0])
        assert float(cut) == pytest.approx(OF_A_GPU * 2**20 * 1e-9, rel=0.01)
    assert {line[0] for line in lines} == set(class_logits.DATA.values())
