"""Swapping a loss: which head takes which, what the check says of real configs, and what it prints."""

import importlib
import inspect
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mmdet
import pytest
import torch
from mmdet.models.losses import DDQAuxLoss
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from torch import nn

from focal_plugin import swap
from focal_plugin.losses import CLASSES

ROOT = Path(__file__).parents[1]
MMDET = Path(mmdet.__file__).parent / '.mim/configs'
BOARDS = ROOT / 'configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py'

register_all_modules()


@pytest.fixture(scope='module')
def tool():
    """The modules of the tool: what is asked for, the training step, the report, the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'tools')
        names = dict(request='_swap_request', steps='_training_step', report='_swap_report', command='check_swap')
        tool = SimpleNamespace(**{key: importlib.import_module(name) for key, name in names.items()})
        patch.setattr(tool.steps, 'SIZE', 128)
        yield tool


# The table of heads.


def heads_of_mmdet() -> list[type]:
    def takes_a_loss(kind: type) -> bool:
        return any(key in inspect.signature(base.__init__).parameters for base in kind.__mro__ for key in swap.KEYS)

    return [
        kind
        for kind in MODELS.module_dict.values()
        if kind.__module__.startswith('mmdet.models.') and 'Head' in kind.__name__ and takes_a_loss(kind)
    ]


def test_table_knows_every_head_of_mmdet():
    heads = heads_of_mmdet()
    assert len(heads) > 50
    assert [kind.__name__ for kind in heads if swap.head_of(kind) is None] == []


def test_table_has_no_other_names():
    kinds = {kind.__name__ for kind in [*MODELS.module_dict.values(), DDQAuxLoss]}
    bases = {base.__name__ for kind in heads_of_mmdet() for base in kind.__mro__}
    assert sorted(swap.HEADS.keys() - kinds - bases) == []
    assert all(head.targets in swap.TARGETS for head in swap.HEADS.values())


def loss_of(spec: str, **arguments) -> nn.Module:
    required = dict(class_balanced_focal=dict(samples_per_class=[1, 2]), equalized_focal=dict(num_classes=2))
    return CLASSES[spec](**required.get(spec, {}), **arguments)


def refused(head: str, spec: str, **arguments) -> list[str]:
    return list(swap.refusals(f'head ({head})', swap.head_of(head), loss_of(spec, **arguments)))


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
        *(('RetinaHead', spec, {}) for spec in CLASSES if spec != 'gaussian_focal'),
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
        assert list(swap.refusals('aux', swap.head_of(DDQAuxLoss), loss_of(spec, **arguments))) == []
    else:
        assert refused(head, spec, **arguments) == []


def test_every_classification_loss_is_found_and_swapped():
    old = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
    model = ConfigDict(
        rpn_head=dict(type='RPNHead', loss_cls=dict(old), loss_bbox=dict(type='L1Loss')),
        roi_head=dict(bbox_head=[dict(type='DIIHead', loss_cls=dict(old)), dict(type='DIIHead', loss_cls=dict(old))]),
        detector=dict(bbox_head=dict(type='CenterNetHead', loss_center_heatmap=dict(type='GaussianFocalLoss'))),
    )
    new = swap.swapped(model, 'FusedPolyFocalLoss', dict(epsilon=0.5, gamma=1.0))
    assert [(site.path, site.head) for site in swap.sites(new)] == [
        ('rpn_head.loss_cls', 'RPNHead'),
        ('roi_head.bbox_head.0.loss_cls', 'DIIHead'),
        ('roi_head.bbox_head.1.loss_cls', 'DIIHead'),
        ('detector.bbox_head.loss_center_heatmap', 'CenterNetHead'),
    ]
    swapped = dict(type='FusedPolyFocalLoss', use_sigmoid=True, gamma=1.0, alpha=0.25, epsilon=0.5)
    assert [site.loss for site in swap.sites(new)][:3] == [swapped] * 3
    assert new.rpn_head.loss_bbox == dict(type='L1Loss') and model.rpn_head.loss_cls == old


# The check of whole configs.


def boards(**head) -> Config:
    config = Config.fromfile(BOARDS)
    for name, value in head.items():
        config.model.bbox_head[name] = value
    return config


def small(path: str, **options) -> Config:
    """A config of mmdet's on ResNet-18."""
    config = Config.fromfile(MMDET / path)
    config.model.backbone.update(depth=18, init_cfg=None)
    if 'neck' in config.model:
        config.model.neck.in_channels = [64, 128, 256, 512]
    config.merge_from_dict(options)
    return config


def check(tool, config: Config, text: str):
    return tool.report.check(config, tool.request.parse_loss(text))


def test_equal_losses_make_equal_steps(tool):
    report = check(tool, boards(), 'FocalLoss')
    assert report.refusals == [] and report.notes == []
    before, after = report.steps
    assert before.losses == pytest.approx(after.losses, rel=1e-5)
    assert before.norms == pytest.approx(after.norms, rel=1e-4)
    assert before.losses['loss_cls'] > 0.1 and before.norms['bbox_head'] > 0.1
    changed = [line for line in report.diff.splitlines()[2:] if line[0] in '+-']
    assert [line[0] + line[1:].strip() for line in changed] == ["-type='FusedFocalLoss',", "+type='FocalLoss',"]


def test_inherited_values_are_told(tool):
    report = check(tool, boards(), 'FusedVarifocalLoss')
    assert report.refusals == []
    assert any('alpha=0.25 (default 0.75)' in sentence for sentence in report.notes)
    assert any('each positive has quality 1' in sentence for sentence in report.notes)
    assert report.steps[1].losses['loss_cls'] != pytest.approx(report.steps[0].losses['loss_cls'], rel=0.1)
    assert report.steps[1].losses['loss_bbox'] == report.steps[0].losses['loss_bbox']


def test_use_sigmoid_left_out(tool):
    report = check(tool, boards(loss_cls=dict(type='CrossEntropyLoss')), 'FusedFocalLoss')
    assert any('built for a softmax of 5 channels' in sentence for sentence in report.refusals)


def test_number_of_classes(tool):
    report = check(tool, boards(num_classes=7), 'FusedFocalLoss')
    assert any('num_classes=7, the training set 4 classes' in sentence for sentence in report.refusals)


def test_argument_that_no_loss_knows(tool):
    loss_cls = dict(type='GHMC', use_sigmoid=True, bins=30, momentum=0.75)
    (sentence,) = check(tool, boards(loss_cls=loss_cls), 'FusedFocalLoss').refusals
    assert sentence.startswith('the model does not build') and "'bins'" in sentence and '_delete_=True' in sentence


def test_a_loss_that_gives_no_number(tool):
    @MODELS.register_module(force=True)
    class InfiniteLoss(nn.Module):
        def forward(self, pred, *_, **__):
            return pred.sum() * float('inf')

        def __init__(self, **_):
            super().__init__()

    report = check(tool, boards(), 'InfiniteLoss')
    assert any('not finite' in sentence for sentence in report.refusals)


def test_heads_with_losses_of_their_own(tool):
    (sentence,) = check(tool, small('ssd/ssd300_coco.py'), 'FusedFocalLoss').refusals
    assert sentence.startswith('bbox_head (SSDHead) keeps its loss')
    sentences = check(tool, small('maskformer/maskformer_r50_ms-16xb1-75e_coco.py'), 'FusedFocalLoss').refusals
    assert sentences[0].startswith('panoptic_head (MaskFormerHead) keeps its loss')


def test_two_stage_detector(tool):
    """Its sampler and its softmax over the background are two more traps."""
    config = small('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    sentences = check(tool, config, 'FusedFocalLoss,use_sigmoid=True').refusals
    assert any('rpn_head (RPNHead) samples its anchors with RandomSampler' in sentence for sentence in sentences)
    assert any('roi_head.bbox_head (Shared2FCBBoxHead) applies a softmax' in sentence for sentence in sentences)


def test_only_one_of_two_heads(tool):
    config = small('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    loss = tool.request.parse_loss('FocalLoss')
    after = tool.request.swapped(config, loss, 'rpn_head').model
    assert after.rpn_head.loss_cls.type == 'FocalLoss' and after.roi_head.bbox_head.loss_cls.type == 'CrossEntropyLoss'
    (sentence,) = tool.report.check(config, loss, 'mask_head').refusals
    assert sentence.startswith('nothing to swap') and sentence.endswith('in mask_head')


def test_loss_that_the_head_leaves_unused(tool):
    config = small('vfnet/vfnet_r50_fpn_1x_coco.py', **{'model.bbox_head.use_vfl': False})
    assert any('no effect' in sentence for sentence in check(tool, config, 'FusedFocalLoss').refusals)


def test_head_with_two_phases_is_taken_in_the_second(tool):
    config = small('tood/tood_r50_fpn_1x_coco.py')
    report = check(tool, config, 'FusedQualityFocalLoss')
    assert report.refusals == []
    assert report.steps[1].calls['bbox_head.loss_cls'].count('(int64(') == 1


def test_a_step_that_raises_is_a_refusal(tool):
    report = check(tool, small('gfl/gfl_r50_fpn_1x_coco.py'), 'FusedFocalLoss')
    assert any(sentence.startswith('a training step raises') for sentence in report.refusals)


def handed(pred: torch.Tensor, target) -> str:
    if isinstance(target, tuple):
        return 'scored'
    if target.is_floating_point():
        return 'flat' if pred.dim() == 1 else 'dense'
    return 'labels'


SEEN = {
    'gfl/gfl_r50_fpn_1x_coco.py': 'scored',
    'tood/tood_r50_fpn_1x_coco.py': 'scored',
    'vfnet/vfnet_r50_fpn_1x_coco.py': 'dense',
    'centernet/centernet_r18_8xb16-crop512-140e_coco.py': 'dense',
}
SEEN_SLOWLY = {
    'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py': 'dense',
    'detr/detr_r50_8xb2-150e_coco.py': 'labels',
    'dino/dino-4scale_r50_8xb2-12e_coco.py': 'labels',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': 'labels',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': 'labels',
    'fsaf/fsaf_r50_fpn_1x_coco.py': 'labels',
    'reppoints/reppoints-moment_r50_fpn_1x_coco.py': 'labels',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py': 'scored',
    'sabl/sabl-retinanet_r50_fpn_1x_coco.py': 'labels',
    'solo/decoupled-solo_r50_fpn_1x_coco.py': 'labels',
    'solov2/solov2_r50_fpn_1x_coco.py': 'labels',
    'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py': 'labels',
    'yolact/yolact_r50_1xb8-55e_coco.py': 'labels',
    'yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py': 'dense',
    'yolof/yolof_r50-c5_8xb8-1x_coco.py': 'labels',
    'yolox/yolox_tiny_8xb8-300e_coco.py': 'dense',
}


@pytest.mark.parametrize(
    ('path', 'form'),
    [*SEEN.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in SEEN_SLOWLY.items())],
    ids=lambda value: value.partition('/')[0],
)
def test_heads_hand_over_what_the_table_says(tool, monkeypatch, path, form):
    monkeypatch.setattr(tool.steps, 'SIZE', 256 if path in SEEN_SLOWLY else 128)
    config = Config.fromfile(MMDET / path)
    model = tool.steps.build(config.model)
    seen = []
    for name, module in model.named_modules():
        parent, _, key = name.rpartition('.')
        if key in swap.KEYS:
            entry = swap.head_of(type(model.get_submodule(parent)))
            module.register_forward_pre_hook(lambda _, inputs, entry=entry: seen.append((entry, *inputs[:2])))
    tool.steps.backward(model, tool.report.loads_masks(config.train_dataloader))
    assert {handed(pred, target) for _, pred, target in seen} == {form}
    for entry, pred, _ in seen:
        stated = {'heat map': 'dense', 'qualities': 'labels'}.get(entry.targets, entry.targets)
        assert stated == form
        assert entry.probabilities is bool((pred >= 0).all() and (pred <= 1).all())


@pytest.mark.slow
@pytest.mark.parametrize('path', ['dino/dino-4scale_r50_8xb2-12e_coco.py', 'detr/detr_r50_8xb2-150e_coco.py'])
def test_detr_heads_hand_over_qualities_to_losses_that_take_them(tool, monkeypatch, path):
    monkeypatch.setattr(tool.steps, 'SIZE', 256)
    config = Config.fromfile(MMDET / path)
    config.model.bbox_head.loss_cls = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
    report = check(tool, config, 'FusedVarifocalLoss')
    assert '(int64(' in report.steps[1].calls['bbox_head.loss_cls']
    assert any('write FocalLossCost' in sentence for sentence in report.refusals) is path.startswith('detr/')


# What the tool prints.


@pytest.mark.parametrize(
    ('arguments', 'status', 'words'),
    [
        (
            (BOARDS, '--loss', 'FocalLoss'),
            0,
            ["+            type='FocalLoss'", 'loss_cls ', 'gradient norm', 'FocalLoss fits'],
        ),
        ((BOARDS, '--loss', 'FusedGaussianFocalLoss'), 1, ['heat maps', 'FusedGaussianFocalLoss does not fit']),
        ((BOARDS, '--loss', 'FusedFocalLos'), 2, ["no loss is called 'FusedFocalLos'. Did you mean FusedFocalLoss"]),
        ((BOARDS, '--loss', 'FocalLoss,gamma'), 2, ['write NAME or NAME,key=value']),
        (('absent.py', '--loss', 'FocalLoss'), 2, ['absent.py: no such file']),
    ],
    ids=['fits', 'does not fit', 'unknown name', 'wrong arguments', 'no config'],
)
def test_status_and_words(tool, monkeypatch, capsys, arguments, status, words):
    monkeypatch.setattr(sys, 'argv', ['check_swap.py', *map(str, arguments)])
    try:
        assert tool.command.main() == status
    except SystemExit as exit:
        assert exit.code == status
    finally:
        logging.disable(logging.NOTSET)
    output = ''.join(capsys.readouterr())
    assert all(word in output for word in words), output


def test_command():
    command = [sys.executable, 'tools/check_swap.py', BOARDS, '--loss', 'FusedFocalLoss,gama=2.0']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "FusedFocalLoss has no argument 'gama': did you mean 'gamma'?" in done.stdout
    assert done.stdout.splitlines()[-1] == 'FusedFocalLoss does not fit'
    # What mmengine and mmdet log and warn about would bury the report.
    assert done.stderr == ''
