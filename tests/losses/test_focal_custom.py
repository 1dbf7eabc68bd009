"""FusedFocalCustomLoss beside mmdet's FocalCustomLoss: as a loss, and in the box heads of Faster and Cascade R-CNN."""

import inspect
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.models.losses import FocalCustomLoss
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

from focal_plugin.losses import CLASSES, FusedFocalCustomLoss, FusedFocalLoss

N, C = 33, 4
BOTH = ('FocalCustomLoss', 'FusedFocalCustomLoss')


@pytest.fixture(scope='module', autouse=True)
def registered():
    register_all_modules()


@pytest.mark.parametrize(
    'call',
    [
        dict(),
        dict(avg_factor=9.0),
        dict(reduction_override='none'),
        dict(reduction_override='sum'),
        dict(avg_factor=torch.tensor(9)),
    ],
    ids=['mean', 'avg_factor', 'none', 'sum', 'an int64 avg_factor'],
)
@pytest.mark.parametrize('config', [dict(), dict(gamma=1.5, alpha=0.4, loss_weight=2.5)], ids=['defaults', 'other'])
def test_values_gradients_activation_accuracy(call, config):
    """Channels beyond num_classes, which a head without the protocol has, count in neither activation nor accuracy."""
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(N, C, generator=generator)
    labels, weight = torch.randint(0, C + 1, (N,), generator=generator), torch.rand(N, generator=generator)
    wide = torch.randn(N, C + 1, generator=generator)
    results = []
    for kind in BOTH:
        loss, leaf = MODELS.build(dict(type=kind, num_classes=C, **config)), pred.clone().requires_grad_()
        value = loss(leaf, labels, weight, **call)
        value.sum().backward()
        results.append((value.detach(), leaf.grad, loss.get_activation(wide), loss.get_accuracy(wide, labels)))
    torch.testing.assert_close(*results, rtol=2e-5, atol=1e-7)


def box_head(kind, path, seed=0):
    """A small RoI head of a stock config, its classification loss exchanged, with the same weights for every kind."""
    torch.manual_seed(seed)
    config = Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / path).model
    head = config.roi_head
    head.update(train_cfg=config.train_cfg.rcnn, test_cfg=config.test_cfg.rcnn)
    head.test_cfg.score_thr = 0.0
    head.bbox_roi_extractor.out_channels = 8
    heads = head.bbox_head if isinstance(head.bbox_head, list) else [head.bbox_head]
    for each in heads:
        each.update(in_channels=8, fc_out_channels=16, num_classes=C)
        each.loss_cls = dict(type=kind, num_classes=C, loss_weight=1.5)
    return MODELS.build(head)


def with_background(logits):
    scores = logits.sigmoid()
    return torch.cat([scores, 1 - scores.amax(dim=1, keepdim=True)], dim=1)


@pytest.mark.parametrize(
    'path', ['faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py']
)
def test_box_heads(path):
    """The same losses, accuracies and gradients; C channels, none for the background.

    So are the detections, once mmdet's loss gives the scores a column for the background.
    """
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 8, 32 // 2**level, 32 // 2**level, generator=generator) for level in range(5)]
    corners = 90 * torch.rand(40, 2, generator=generator)
    boxes = torch.cat([corners, corners + 8 + 30 * torch.rand(40, 2, generator=generator)], dim=1)
    proposals = InstanceData(bboxes=boxes, scores=torch.rand(40, generator=generator), priors=boxes)
    shape = dict(img_shape=(128, 128), ori_shape=(128, 128), pad_shape=(128, 128), scale_factor=(1.0, 1.0))
    sample = DetDataSample(metainfo=shape)
    sample.gt_instances = InstanceData(bboxes=boxes[:3] + 2, labels=torch.tensor([0, 3, 2]))
    results = []
    for kind in BOTH:
        head = box_head(kind, path)
        torch.manual_seed(1)  # the sampler draws
        losses = head.loss(features, [proposals.clone()], [sample])
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        grads = {name: parameter.grad for name, parameter in head.named_parameters()}
        assert any('acc_classes' in name for name in losses)
        assert {tuple(grad.shape) for name, grad in grads.items() if 'fc_cls.weight' in name} == {(C, 16)}
        for loss in head.modules():
            if type(loss) is FocalCustomLoss:
                loss.get_activation = with_background
        with torch.no_grad():
            (found,) = head.predict(tuple(features), [proposals.clone()], [sample])
        results.append((losses, grads, found.scores, found.bboxes, found.labels))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_what_is_no_object_has_the_score_of_the_background():
    """By which Soft Teacher weighs the negatives of photos without annotations."""
    loss = MODELS.build(dict(type='FusedFocalCustomLoss', num_classes=C))
    loss.get_cls_channels(C)
    logits = torch.full((3, C), -9.0)
    logits[1, 2], logits[2, 0] = 9.0, 0.0
    torch.testing.assert_close(loss.get_activation(logits)[:, -1], torch.tensor([1.0, 0.0, 0.5]), rtol=0, atol=2e-4)
    assert loss.get_activation(logits[:0]).shape == (0, C + 1)


@pytest.mark.parametrize(
    'path', ['faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py']
)
def test_each_score_is_found_with_the_box_of_its_class(path):
    """mmdet's own loss gives box heads no column for the background, and they drop that of the last class."""
    head = box_head('FusedFocalCustomLoss', path).bbox_head
    head = head[0] if isinstance(head, torch.nn.ModuleList) else head
    generator, rois = torch.Generator().manual_seed(0), 6
    corners = 40 * torch.rand(rois, 2, generator=generator)
    roi = torch.cat([torch.zeros(rois, 1), corners, corners + 30], dim=1)
    classes = 1 if head.reg_class_agnostic else C
    logits, deltas = torch.randn(rois, C, generator=generator), torch.randn(rois, 4 * classes, generator=generator)
    keep_all = Config(dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=1.0), max_per_img=-1))
    sample = dict(img_shape=(128, 128), scale_factor=(1.0, 1.0))
    (found,) = head.predict_by_feat((roi,), (logits,), (deltas,), [sample], keep_all)
    expected = {}
    for row in range(rois):
        for label in range(C):
            delta = deltas[row].view(classes, 4)[label % classes]
            box = head.bbox_coder.decode(roi[row : row + 1, 1:], delta[None], max_shape=(128, 128))
            expected[label, float(logits[row, label].sigmoid())] = box[0]
    assert len(found) == len(expected) == rois * C
    for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.bboxes, strict=True):
        torch.testing.assert_close(box, expected[label, score])


def test_constructor_is_that_of_mmdet():
    ours, theirs = (inspect.signature(kind).parameters.values() for kind in (FusedFocalCustomLoss, FocalCustomLoss))
    assert [(p.name, p.default) for p in ours if p.kind is not p.KEYWORD_ONLY] == [(p.name, p.default) for p in theirs]
    assert issubclass(FusedFocalCustomLoss, FocalCustomLoss)
    loss = FusedFocalCustomLoss(True, C, 1.5, 0.4, 'sum', 2.0)
    assert (loss.num_classes, loss.gamma, loss.alpha, loss.reduction, loss.loss_weight) == (C, 1.5, 0.4, 'sum', 2.0)


def test_plain_focal_does_not_speak_the_protocol():
    """Heads test for the attributes: FusedFocalLoss must not have them, and the spec's class is not this one."""
    assert not hasattr(FusedFocalLoss(), 'custom_cls_channels')
    assert CLASSES['focal'] is FusedFocalLoss


def test_num_classes_must_be_given():
    with pytest.raises(TypeError, match='needs num_classes'):
        FusedFocalCustomLoss(gamma=2.0)


def test_num_classes_must_be_the_heads():
    with pytest.raises(ValueError, match='num_classes=3, its loss num_classes=4'):
        FusedFocalCustomLoss(num_classes=C).get_cls_channels(3)


def test_activated_has_no_effect_and_says_so():
    pred, labels = torch.tensor([[3.0, -2.0]]), torch.tensor([0])
    with pytest.warns(UserWarning, match='activated=True has no effect'):
        loss = FusedFocalCustomLoss(num_classes=2, activated=True)
    expected = FocalCustomLoss(num_classes=2, activated=True)(pred, labels)
    torch.testing.assert_close(loss(pred, labels), expected)
