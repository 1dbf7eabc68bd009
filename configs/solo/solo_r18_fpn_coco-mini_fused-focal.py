"""A small SOLO-R18 learns fourteen photos by heart, on a CPU."""

_base_ = '../_base_/coco_mini.py'

model = dict(
    type='SOLO',
    data_preprocessor=_base_.padded,
    # Without pretrained weights every layer has to learn, batch norm's statistics too.
    backbone=dict(type='ResNet', depth=18, norm_eval=False),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=64, start_level=0, num_outs=5),
    mask_head=dict(
        type='SOLOHead',
        num_classes=80,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        strides=[8, 8, 16, 32, 32],
        # Those of the base are for photos five times as wide.
        scale_ranges=((1, 32), (16, 64), (32, 128), (64, 192), (128, 512)),
        pos_scale=0.2,
        num_grids=[24, 20, 16, 12, 8],
        cls_down_index=0,
        loss_mask=dict(type='DiceLoss', use_sigmoid=True, loss_weight=3.0),
        loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        norm_cfg=dict(type='GN', num_groups=32, requires_grad=True),
    ),
    test_cfg=dict(
        nms_pre=500, score_thr=0.1, mask_thr=0.5, filter_thr=0.05, kernel='gaussian', sigma=2.0, max_per_img=100
    ),
)
