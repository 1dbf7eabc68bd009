"""Eighteen of mmdet's detectors from its own configs, made small enough to train on a CPU, and photos to train them on.

Weights are random, so nothing is frozen and batch norm takes the batch's statistics, unless a test has it otherwise.
"""

import copy
from functools import cache
from pathlib import Path

import mmdet
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch.nn.modules.batchnorm import _BatchNorm

ROOT = Path(__file__).parents[2]
DATA = ROOT / 'tests/data/coco_mini'

PADDED = dict(pad_size_divisor=32)
MASKED = dict(pad_mask=True, **PADDED)
RESNET = dict(
    depth=18, base_channels=16, frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False,
    # Zeroed branches would get no gradients.
    zero_init_residual=False, init_cfg=None,
)  # fmt: skip
FPN = dict(in_channels=[16, 32, 64, 128], out_channels=32)
BODY = dict(backbone=RESNET, neck=FPN)
DENSE = dict(in_channels=32, feat_channels=32, stacked_convs=2)
# Objects of photos a fifth as wide are a fifth as wide.
RANGES = ((-1, 32), (32, 64), (64, 128), (128, 256), (256, 1e8))
GRIDS = dict(
    scale_ranges=((1, 32), (16, 64), (32, 128), (64, 192), (128, 512)), num_grids=[24, 20, 16, 12, 8]
)  # fmt: skip
SELF = dict(embed_dims=32, num_heads=4)
FEED = dict(embed_dims=32, feedforward_channels=64)
ENCODER = dict(num_layers=1, layer_cfg=dict(self_attn_cfg=SELF, ffn_cfg=FEED))
DECODER = dict(num_layers=2, layer_cfg=dict(self_attn_cfg=SELF, cross_attn_cfg=SELF, ffn_cfg=FEED))
POSITIONS = dict(num_feats=16)
# mmdet writes the width of 256 into the code of what selects its queries.
SELECTING = dict(
    backbone=RESNET,
    neck=dict(in_channels=FPN['in_channels'][1:]),
    num_queries=40,
    encoder=dict(num_layers=1, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))),
    decoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))),
)


def _dynamic(size: int) -> dict:
    return dict(in_channels=32, feat_channels=16, out_channels=32, input_feat_shape=size)


# mmdet's config, and what is smaller
DETECTORS: dict[str, tuple[str, dict]] = {
    'RetinaNet': ('retinanet/retinanet_r50_fpn_1x_coco', dict(**BODY, bbox_head=DENSE)),
    'ATSS': ('atss/atss_r50_fpn_1x_coco', dict(**BODY, bbox_head=DENSE)),
    'FCOS': ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', dict(**BODY, bbox_head=dict(**DENSE, regress_ranges=RANGES))),
    'GFL': ('gfl/gfl_r50_fpn_1x_coco', dict(**BODY, bbox_head=DENSE)),
    'VFNet': ('vfnet/vfnet_r50_fpn_1x_coco', dict(**BODY, bbox_head=DENSE)),
    'RTMDet': (
        'rtmdet/rtmdet_tiny_8xb32-300e_coco', dict(data_preprocessor=PADDED, backbone=dict(init_cfg=None))
    ),
    'TOOD': (
        'tood/tood_r50_fpn_1x_coco', dict(**BODY, bbox_head=DENSE, train_cfg=dict(initial_epoch=0))
    ),
    # mmcv's deformable convolution takes no level as small as these photos'.
    'DDOD': ('ddod/ddod_r50_fpn_1x_coco', dict(**BODY, bbox_head=dict(**DENSE, use_dcn=False))),
    'CenterNet': (
        'centernet/centernet_r18_8xb16-crop512-140e_coco',
        dict(
            data_preprocessor=PADDED,
            backbone=RESNET,
            neck=dict(in_channels=128, num_deconv_filters=(32, 32, 32)),
            bbox_head=dict(in_channels=32, feat_channels=32),
        ),
    ),
    'SOLO': ('solo/solo_r50_fpn_1x_coco', dict(**BODY, mask_head=DENSE | GRIDS)),
    'SOLOv2': (
        'solov2/solov2_r50_fpn_1x_coco',
        dict(**BODY, mask_head=dict(**DENSE, **GRIDS, mask_feature_head=dict(feat_channels=32, out_channels=32))),
    ),
    'CondInst': (
        'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance',
        dict(
            **BODY,
            bbox_head=dict(**DENSE, regress_ranges=RANGES),
            mask_head=dict(mask_feature_head=dict(in_channels=32, feat_channels=32, num_stacked_convs=2)),
        ),
    ),
    'RTMDet-Ins': (
        'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
        dict(data_preprocessor=MASKED, backbone=dict(init_cfg=None)),
    ),
    'MaskFormer': (
        'maskformer/maskformer_r50_ms-16xb1-75e_coco',
        dict(
            data_preprocessor=dict(pad_seg=False, **PADDED),
            backbone=RESNET,
            panoptic_head=dict(
                in_channels=FPN['in_channels'],
                feat_channels=32,
                out_channels=32,
                num_stuff_classes=0,  # instances only
                num_queries=20,
                pixel_decoder=dict(encoder=ENCODER, positional_encoding=POSITIONS),
                positional_encoding=POSITIONS,
                transformer_decoder=DECODER,
                loss_cls=dict(class_weight=[1.0] * 80 + [0.1]),
            ),
            panoptic_fusion_head=dict(num_stuff_classes=0),
        ),
    ),
    'QueryInst': (
        'queryinst/queryinst_r50_fpn_1x_coco',
        dict(
            **BODY,
            rpn_head=dict(num_proposals=20, proposal_feature_channel=32),
            roi_head=dict(
                num_stages=2,
                stage_loss_weights=[1] * 2,
                proposal_feature_channel=32,
                bbox_roi_extractor=dict(out_channels=32),
                mask_roi_extractor=dict(out_channels=32),
                bbox_head=dict(
                    in_channels=32, feedforward_channels=64, num_heads=4, dynamic_conv_cfg=_dynamic(7)
                ),
                mask_head=dict(
                    in_channels=32, conv_out_channels=32, num_convs=2, dynamic_conv_cfg=_dynamic(14)
                ),
            ),
        ),
    ),
    'Deformable DETR': (
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
        dict(
            backbone=RESNET,
            neck=dict(in_channels=FPN['in_channels'][1:], out_channels=32),
            num_queries=40,
            bbox_head=dict(embed_dims=32),
            encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=dict(embed_dims=32), ffn_cfg=FEED)),
            decoder=dict(
                num_layers=2,
                layer_cfg=dict(self_attn_cfg=SELF, cross_attn_cfg=dict(embed_dims=32), ffn_cfg=FEED),
            ),
            positional_encoding=POSITIONS,
        ),
    ),
    'Deformable DETR, two stages': (
        'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco', SELECTING
    ),
    'DINO': ('dino/dino-4scale_r50_8xb2-12e_coco', dict(**SELECTING, dn_cfg=dict(group_cfg=dict(num_dn_queries=20)))),
}  # fmt: skip


def _merged(config: dict, changes: dict) -> None:
    """Changes a model's config in place; of a list, as of a cascade's stages, as many are kept as there are stages."""
    stages = changes.get('num_stages')
    for key, change in changes.items():
        if isinstance(config.get(key), list) and isinstance(change, dict):
            config[key] = config[key][:stages]
            for each in config[key]:
                _merged(each, change)
        elif isinstance(config.get(key), dict) and isinstance(change, dict) and not change.get('_delete_'):
            _merged(config[key], change)
        else:
            config[key] = copy.deepcopy(change)
            if isinstance(change, dict):
                config[key].pop('_delete_', None)


def model_config(name: str, **changes) -> dict:
    """A detector's model as mmdet has it, but small, and with a test's own changes."""
    path, smaller = DETECTORS[name]
    model = Config.fromfile(Path(mmdet.__file__).parent / f'.mim/configs/{path}.py').model
    _merged(model, smaller)
    _merged(model, changes)
    stages = model.get('roi_head', {}).get('num_stages')
    if stages:
        model.train_cfg.rcnn = model.train_cfg.rcnn[:stages]
    return model


def build(name: str, seed: int = 0, **changes) -> torch.nn.Module:
    """The detector, ready to train; the same weights for the same seed."""
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    model = revert_sync_batchnorm(MODELS.build(model_config(name, **changes)))  # SyncBN needs a GPU
    model.init_weights()
    return model.train()


@cache
def dataset():
    """Fourteen photos with boxes and masks, 256 pixels wide or 192 high."""
    init_default_scope('mmdet')
    settings = Config.fromfile(ROOT / 'configs/_base_/coco_mini.py', import_custom_modules=False)
    return DATASETS.build(dict(settings.train_dataloader.dataset, data_root=str(DATA)))


def batch(*indices: int) -> dict:
    """These photos, loaded anew: a data preprocessor changes what it is given."""
    return pseudo_collate([dataset()[index] for index in indices])


def losses(model: torch.nn.Module, photos: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(the loss to differentiate, what training logs)."""
    inner = getattr(model, 'module', model)
    if not any('mask' in name for name, _ in inner.named_modules()):
        for sample in photos['data_samples']:
            sample.gt_instances.pop('masks')  # RTMDet's assigner would take them for RTMDet-Ins's
    if hasattr(inner, 'bbox_head') and hasattr(inner.bbox_head, 'cls_num_pos_samples_per_level'):
        inner.bbox_head.cls_num_pos_samples_per_level = [0.0] * 5  # DDOD's count of all steps, else no two are alike
    MessageHub.get_current_instance().update_info('epoch', 0)  # which TOOD asks for
    data = inner.data_preprocessor(photos, training=True)
    return inner.parse_losses(model(**data, mode='loss'))


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def with_fixed_norms(model: torch.nn.Module) -> torch.nn.Module:
    """The model with its batch norm as at test: else rounding in one photo moves the activations of all."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


FOCAL = dict(type='FusedFocalLoss')
QUALITY = dict(type='FusedQualityFocalLoss')
EQUALIZED = dict(type='FusedEqualizedFocalLoss', num_classes=80)
SOME_ANCHORS, SOME_CLASSES = 3, 0.2  # MiB of a chunk: of 9 x 80 and of 80 classes at up to 2 x 24 x 32 places
MASK_FOCAL = dict(_delete_=True, type='FusedMaskFocalLoss', use_sigmoid=True, loss_weight=1.0)
# A detector of those above and the losses and head it gets
FUSED: dict[str, tuple[str, dict]] = {
    'RetinaNet': ('RetinaNet', dict(bbox_head=dict(loss_cls=FOCAL))),
    'RetinaNet, maps': ('RetinaNet', dict(bbox_head=dict(type='FusedRetinaHead', loss_cls=FOCAL))),
    'ATSS': ('ATSS', dict(bbox_head=dict(loss_cls=FOCAL))),
    'FCOS, maps': ('FCOS', dict(bbox_head=dict(type='FusedFCOSHead', loss_cls=FOCAL))),
    'GFL, maps': ('GFL', dict(bbox_head=dict(type='FusedGFLHead', loss_cls=QUALITY))),
    'RTMDet, maps': ('RTMDet', dict(bbox_head=dict(type='FusedRTMDetSepBNHead', loss_cls=QUALITY))),
    'RTMDet-Ins, maps': ('RTMDet-Ins', dict(bbox_head=dict(type='FusedRTMDetInsSepBNHead', loss_cls=QUALITY))),
    'TOOD, maps': (
        'TOOD', dict(bbox_head=dict(type='FusedTOODHead', loss_cls=QUALITY, initial_loss_cls=FOCAL))
    ),
    'DDOD, maps': ('DDOD', dict(bbox_head=dict(type='FusedDDODHead', loss_cls=FOCAL))),
    'CondInst': ('CondInst', dict(bbox_head=dict(loss_cls=FOCAL), mask_head=dict(loss_mask=MASK_FOCAL))),
    'equalized': ('RetinaNet', dict(bbox_head=dict(loss_cls=EQUALIZED))),
    'RetinaNet, cut': ('RetinaNet', dict(bbox_head=dict(type='FusedRetinaHead', loss_cls=FOCAL, cut=SOME_ANCHORS))),
    'ATSS, cut': ('ATSS', dict(bbox_head=dict(type='FusedATSSHead', loss_cls=FOCAL, cut=SOME_CLASSES))),
    'FCOS, cut': ('FCOS', dict(bbox_head=dict(type='FusedFCOSHead', loss_cls=FOCAL, cut=SOME_CLASSES))),
    'GFL, cut': ('GFL', dict(bbox_head=dict(type='FusedGFLHead', loss_cls=QUALITY, cut=SOME_CLASSES))),
    'CondInst, cut': ('CondInst', dict(bbox_head=dict(type='FusedCondInstBboxHead', loss_cls=FOCAL, cut=SOME_CLASSES))),
    'equalized, cut': ('RetinaNet', dict(bbox_head=dict(type='FusedRetinaHead', loss_cls=EQUALIZED, cut=SOME_ANCHORS))),
    'DINO, held': ('DINO', dict(bbox_head=dict(loss_cls=FOCAL))),
    'DINO, selected': ('DINO', dict(type='FusedDINO', chunk=SOME_CLASSES, bbox_head=dict(loss_cls=FOCAL))),
}  # fmt: skip
MAPS = [name for name in FUSED if name.endswith(', maps')]
CUT = [name for name in FUSED if name.endswith(', cut')]


def fused(name: str, **changes) -> torch.nn.Module:
    """A detector with losses of this package, ready to train."""
    detector, losses_of_ours = FUSED[name]
    config = dict(losses_of_ours)
    for key, change in changes.items():
        config[key] = config.get(key, {}) | change
    return with_fixed_norms(build(detector, **config))


def error(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Of all gradients, relative to their norm: that of a bias before a norm is nothing but rounding."""
    assert ours.keys() == theirs.keys()
    total = sum(grad.double().square().sum() for grad in theirs.values())
    off = sum((ours[name] - grad).double().square().sum() for name, grad in theirs.items())
    return (off / total).sqrt().item()
