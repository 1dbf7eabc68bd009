"""What works on the oldest stack, Python 3.8 with torch 2.1: these tests need nothing newer."""

from __future__ import annotations
import importlib
import pkgutil
import subprocess
import sys

import pytest
import torch
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData

import focal_plugin
from focal_plugin import functional
from focal_plugin.compatibility import COMPILES
from focal_plugin.hooks import findings

N, C = 30, 7
BOARDS = 'retinanet/retinanet_r18_fpn_boards_fused-focal.py'


def inputs(device: str) -> list:
    return [each.to(device) for each in (torch.randn(N, C), torch.randint(0, C + 1, (N,)), torch.rand(N))]


def gradient(loss, pred: torch.Tensor) -> tuple:
    pred = pred.clone().requires_grad_()
    value = loss(pred)
    value.backward()
    return value.detach(), pred.grad


def test_every_module_is_imported():
    names = [module.name for module in pkgutil.walk_packages(focal_plugin.__path__, 'focal_plugin.')]
    left = ['focal_plugin.override', 'focal_plugin.check_swap.__main__']  # the next test's; a command
    left += [
        name for name in names if name.startswith(('focal_plugin.kernels.triton', 'focal_plugin.kernels.native.lib_'))
    ]
    for name in {*names} - {*left}:
        importlib.import_module(name)


def test_override_gives_names_to_fused_classes():
    code = (
        'import focal_plugin.override; from mmdet.registry import MODELS; from mmdet.models.losses import FocalLoss; '
        "print(type(MODELS.build(dict(type='FocalLoss', use_sigmoid=True))).__name__, FocalLoss.__name__)"
    )
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.split()[-2:] == [b'FusedFocalLoss', b'FusedFocalLoss']


def test_focal_loss_is_its_formula(device):
    pred, target, weight = inputs(device)
    y = torch.nn.functional.one_hot(target, C + 1)[:, :C].double()
    one_minus_pt = (y - pred.double().sigmoid()).abs()
    ones = 0.25 * y + 0.75 * (1 - y)
    formula = (ones * one_minus_pt**2 * -torch.log1p(-one_minus_pt) * weight[:, None]).mean()
    loss, grad = gradient(lambda x: functional.sigmoid_focal_loss(x, target, weight), pred)
    torch.testing.assert_close(loss.double(), formula, rtol=1e-6, atol=0)
    _, theirs = gradient(lambda x: py_sigmoid_focal_loss(x, y.float(), weight), pred)
    torch.testing.assert_close(grad, theirs, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('name', ('QualityFocalLoss', 'VarifocalLoss', 'GaussianFocalLoss'))
def test_losses_are_those_of_mmdet(device, name):
    pred, target, weight = inputs(device)
    target = (target, torch.rand_like(weight)) if name == 'QualityFocalLoss' else torch.rand_like(pred)
    weight = weight if name == 'QualityFocalLoss' else weight[:, None].expand(N, C)
    pred = pred.sigmoid() if name == 'GaussianFocalLoss' else pred
    found, expected = (
        gradient(lambda x, kind=kind: MODELS.build(dict(type=kind))(x, target, weight=weight, avg_factor=3.0), pred)
        for kind in ('Fused' + name, name)
    )
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-7)


def test_compiled_loss_is_the_plain_one(device):
    """In one graph from torch 2.12; before, the compiler leaves the loss out."""
    pred, target, weight = inputs(device)

    def step(pred):
        return functional.sigmoid_focal_loss(2 * pred, target, weight).tanh()

    torch._dynamo.reset()
    compiled = torch.compile(step, backend='aot_eager', fullgraph=COMPILES)
    for _ in range(2):
        torch.testing.assert_close(gradient(compiled, pred), gradient(step, pred))


def boards() -> Config:
    register_all_modules()
    return Config.fromfile(f'{focal_plugin.config_dir()}/{BOARDS}')


def test_hook_finds_another_number_of_classes():
    model = MODELS.build(boards().model)
    assert list(findings(model, 4)) == []
    assert 'num_classes=4' in next(findings(model, 80))


def test_the_class_branch_that_selects_queries_has_a_gradient_under_autocast():
    """torch 2.1's autocast gives a weight no gradient that it first cast under no_grad."""
    register_all_modules()
    gradients = []
    for kind in ('DINO', 'FusedDINO'):
        torch.manual_seed(0)
        config = Config.fromfile(f'{focal_plugin.config_dir()}/focal/dino_r18_boards_fused-focal.py').model
        model = MODELS.build(dict(config, type=kind))
        photo = DetDataSample(metainfo=dict(img_shape=(64, 64)))
        photo.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 60]]), labels=torch.tensor([0]))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            _, found = model.pre_decoder(torch.randn(1, 80, 256), None, torch.tensor([[8, 8], [4, 4]]), [photo])
        found['enc_outputs_class'].float().square().sum().backward()
        gradients.append(model.bbox_head.cls_branches[-1].weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.05, atol=0.05 * float(gradients[0].abs().max()))


def test_a_call_like_two_before_has_the_bits_of_the_first():
    pred, target, weight = inputs('cpu')
    loss = MODELS.build(dict(type='FusedFocalLoss'))
    first, _, third = (gradient(lambda x: loss(x, target, weight, avg_factor=3.0), pred) for _ in range(3))
    assert all(map(torch.equal, first, third))


def test_an_assigner_finds_the_rows_of_maps_that_are_not_copied():
    register_all_modules()
    maps = [torch.randn(2, 8, size, size) for size in (8, 4)]
    photos = []
    for boxes in ([[8.0, 8, 40, 60]], [[3.0, 20, 50, 44], [30, 2, 61, 30]]):
        photo = DetDataSample(metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64)))
        photo.gt_instances = InstanceData(bboxes=torch.tensor(boxes), labels=torch.arange(len(boxes)))
        photos.append(photo)
    found = []
    for head, loss in (('RTMDetHead', 'QualityFocalLoss'), ('FusedRTMDetHead', 'FusedQualityFocalLoss')):
        torch.manual_seed(0)
        model = MODELS.build(
            dict(
                type=head, num_classes=4, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=dict(type='BN'),
                anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16]),
                bbox_coder=dict(type='DistancePointBBoxCoder'),
                loss_cls=dict(type=loss, use_sigmoid=True, beta=2.0, loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
                train_cfg=dict(
                    assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1
                ),
            )
        )  # fmt: skip
        losses = model.loss(maps, photos)
        sum(losses['loss_cls']).backward()
        found.append((*losses['loss_cls'], model.rtm_cls.weight.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)


def losses_of_training(head: str, folder) -> list:
    """The losses of a few iterations by mmengine's Runner, with the hook."""
    config = boards()
    config.merge_from_dict(dict(work_dir=str(folder), experiment_name=head, model=dict(bbox_head=dict(type=head))))
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=100)
    config.param_scheduler = []
    config.train_dataloader.batch_size = 4
    runner, losses = Runner.from_cfg(config), []
    parse_losses = runner.model.parse_losses

    def recorded(parts):
        total, log = parse_losses(parts)
        losses.append(float(total))
        return total, log

    runner.model.parse_losses = recorded
    runner.train()
    return losses


@pytest.mark.slow
def test_training_learns_with_either_head(tmp_path):
    stock, fused = (losses_of_training(head, tmp_path) for head in ('RetinaHead', 'FusedRetinaHead'))
    assert len(stock) == len(fused) == 6
    assert fused[0] == pytest.approx(stock[0], rel=1e-5)
    assert max(stock[-1], fused[-1]) < stock[0]
