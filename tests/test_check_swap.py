"""What the check of a swap says of real configs, and what it prints."""

import configparser
import logging
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

from focal_plugin.check_swap import pairing, sites
from focal_plugin.command import main
from focal_plugin.maps import Map

pytest_plugins = ['tests.swap_tool']

ROOT = Path(__file__).parents[1]
MMDET = Path(mmdet.__file__).parent / '.mim/configs'
BOARDS = ROOT / 'configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py'

register_all_modules()


def test_equal_losses_make_equal_steps(tool):
    report = tool.check(tool.boards(), 'FocalLoss')
    assert report.refusals == [] and report.notes == []
    before, after = report.steps
    assert before.losses == pytest.approx(after.losses, rel=1e-5)
    assert before.norms == pytest.approx(after.norms, rel=1e-4)
    assert before.losses['loss_cls'] > 0.1 and before.norms['bbox_head'] > 0.1
    changed = [line for line in report.diff.splitlines()[2:] if line[0] in '+-']
    assert [line[0] + line[1:].strip() for line in changed] == ["-type='FusedFocalLoss',", "+type='FocalLoss',"]


def test_inherited_values_are_told(tool):
    report = tool.check(tool.boards(), 'FusedVarifocalLoss')
    assert report.refusals == []
    assert any('alpha=0.25 (default 0.75)' in sentence for sentence in report.notes)
    assert any('each positive has quality 1' in sentence for sentence in report.notes)
    assert report.steps[1].losses['loss_cls'] != pytest.approx(report.steps[0].losses['loss_cls'], rel=0.1)
    assert report.steps[1].losses['loss_bbox'] == report.steps[0].losses['loss_bbox']


def test_use_sigmoid_left_out(tool):
    report = tool.check(tool.boards(loss_cls=dict(type='CrossEntropyLoss')), 'FusedFocalLoss')
    assert any('built for a softmax of 5 channels' in sentence for sentence in report.refusals)


def test_number_of_classes(tool):
    report = tool.check(tool.boards(num_classes=7), 'FusedFocalLoss')
    assert any('num_classes=7, the training set 4 classes' in sentence for sentence in report.refusals)


def test_argument_that_no_loss_knows(tool):
    loss_cls = dict(type='GHMC', use_sigmoid=True, bins=30, momentum=0.75)
    (sentence,) = tool.check(tool.boards(loss_cls=loss_cls), 'FusedFocalLoss').refusals
    assert sentence.startswith('the model does not build') and "'bins'" in sentence and '_delete_=True' in sentence


def test_a_loss_that_gives_no_number(tool):
    @MODELS.register_module(force=True)
    class InfiniteLoss(nn.Module):
        def forward(self, pred, *_, **__):
            return pred.sum() * float('inf')

        def __init__(self, **_):
            super().__init__()

    report = tool.check(tool.boards(), 'InfiniteLoss')
    assert any('not finite' in sentence for sentence in report.refusals)


def test_heads_with_losses_of_their_own(tool):
    (sentence,) = tool.check(tool.small('ssd/ssd300_coco.py'), 'FusedFocalLoss').refusals
    assert sentence.startswith('bbox_head (SSDHead) keeps its loss')
    sentences = tool.check(tool.small('maskformer/maskformer_r50_ms-16xb1-75e_coco.py'), 'FusedFocalLoss').refusals
    assert sentences[0].startswith('panoptic_head (MaskFormerHead) keeps its loss')


@pytest.mark.slow
def test_two_stage_detector(tool):
    """Its sampler and its softmax over the background are two more traps."""
    config = tool.small('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    sentences = tool.check(config, 'FusedFocalLoss,use_sigmoid=True').refusals
    assert any('rpn_head (RPNHead) samples its anchors with RandomSampler' in sentence for sentence in sentences)
    assert any('roi_head.bbox_head (Shared2FCBBoxHead) applies a softmax' in sentence for sentence in sentences)


def test_only_one_of_two_heads(tool):
    config = tool.small('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    loss = tool.request.parse_loss('FocalLoss')
    after = tool.request.swapped(config, loss, 'rpn_head').model
    assert after.rpn_head.loss_cls.type == 'FocalLoss' and after.roi_head.bbox_head.loss_cls.type == 'CrossEntropyLoss'
    (sentence,) = tool.report.check(config, loss, 'mask_head').refusals
    assert sentence.startswith('nothing to swap') and sentence.endswith('in mask_head')


def test_functions_in_the_registry_are_no_losses(tool):
    """mmengine registers them too; those of a user's custom_imports."""
    MODELS.register_module(name='a_function', module=lambda x: x)
    try:
        with pytest.raises(tool.request.UsageError, match='Did you mean FusedFocalLoss'):
            tool.request.parse_loss('FusedFocalLos')
    finally:
        del MODELS.module_dict['a_function']


def test_rows_are_shown_as_a_tensor_is(tool):
    rows = Map(torch.zeros(1, 6, 2, 2)).permute(0, 2, 3, 1).reshape(-1, 3)
    assert tool.steps.shown(rows) == 'float32(8, 3)'


@pytest.mark.slow
def test_loss_that_the_head_leaves_unused(tool):
    config = tool.small('vfnet/vfnet_r50_fpn_1x_coco.py', **{'model.bbox_head.use_vfl': False})
    assert any('no effect' in sentence for sentence in tool.check(config, 'FusedFocalLoss').refusals)


@pytest.mark.slow
def test_head_with_two_phases_is_taken_in_the_second(tool):
    config = tool.small('tood/tood_r50_fpn_1x_coco.py')
    report = tool.check(config, 'FusedQualityFocalLoss')
    assert report.refusals == []
    assert report.steps[1].calls['bbox_head.loss_cls'].count('(int64(') == 1


def test_a_step_that_raises_is_a_refusal(tool):
    report = tool.check(tool.small('gfl/gfl_r50_fpn_1x_coco.py'), 'FusedFocalLoss')
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
        if key in sites.KEYS:
            entry = pairing.head_of(type(model.get_submodule(parent)))
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
    report = tool.check(config, 'FusedVarifocalLoss')
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
        ((BOARDS, '--loss', ''), 2, ["no loss is called ''. Did you mean Fused"]),
        ((BOARDS, '--loss', 'FocalLoss,gamma'), 2, ['write NAME or NAME,key=value']),
        ((BOARDS, '--loss', 'FocalLoss,gamma=2) or f('), 2, ['write NAME or NAME,key=value']),
        (('absent.py', '--loss', 'FocalLoss'), 2, ['absent.py: no such file']),
    ],
    ids=['fits', 'does not fit', 'unknown name', 'no name', 'an argument without a value', 'no arguments', 'no config'],
)
def test_status_and_words(tool, capsys, arguments, status, words):
    try:
        assert main(['check-swap', *map(str, arguments)]) == status
    except SystemExit as exit:
        assert exit.code == status
    finally:
        logging.disable(logging.NOTSET)
    output = ''.join(capsys.readouterr())
    assert all(word in output for word in words), output


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('cut.py', 'model = dict(', ['cut.py is no config that can be read: SyntaxError']),
        ('base.py', "_base_ = 'absent.py'", ['base.py is no config that can be read: FileNotFoundError', 'absent.py']),
        ('notes.txt', 'model', ['notes.txt is no config that can be read', 'py/yml/yaml/json']),
        ('data.py', 'train_dataloader = dict()', ['data.py: the config has no model']),
    ],
    ids=['not Python', 'a base that is not there', 'another kind of file', 'no model'],
)
def test_a_bad_config_is_said_in_one_sentence(tmp_path, capsys, name, text, words):
    (tmp_path / name).write_text(text)
    try:
        with pytest.raises(SystemExit) as raised:
            main(['check-swap', str(tmp_path / name), '--loss', 'FusedFocalLoss'])
    finally:
        logging.disable(logging.NOTSET)
    said = capsys.readouterr().err.splitlines()[-1]
    assert raised.value.code == 2
    assert said.startswith('focal-plugin check-swap: error: ') and all(word in said for word in words), said


def start(folder: Path, *command) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_command_needs_no_checkout(tmp_path):
    done = start(tmp_path, '-m', 'focal_plugin.check_swap', BOARDS, '--loss', 'FusedFocalLoss,gama=2.0')
    assert done.returncode == 1, done.stderr
    assert "FusedFocalLoss has no argument 'gama': did you mean 'gamma'?" in done.stdout
    assert done.stdout.splitlines()[-1] == 'FusedFocalLoss does not fit'
    # What mmengine and mmdet log and warn about would bury the report.
    assert done.stderr == ''


def test_installing_makes_the_command():
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    scripts = dict(line.split(' = ') for line in setup['options.entry_points']['console_scripts'].split('\n') if line)
    assert EntryPoint('focal-plugin', scripts['focal-plugin'], 'console_scripts').load() is main


WITHOUT_MMDET = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == 'mmdet' else find(name, *a)
from focal_plugin.command import main
from focal_plugin.maps import Map
main(['check-swap', 'config.py', '--loss', 'FusedFocalLoss'])
"""


def test_command_without_mmdet_says_what_to_install(tmp_path):
    done = start(tmp_path, '-c', WITHOUT_MMDET)
    assert done.returncode == 2
    assert 'mmdet is not installed here: install mmdet 3.3 or onedl-mmdetection 3.5' in done.stderr
    assert 'Traceback' not in done.stderr
