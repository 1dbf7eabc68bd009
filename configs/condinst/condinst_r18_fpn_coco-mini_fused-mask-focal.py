"""A small CondInst-R18 learns fourteen photos by heart, on a CPU: classes and masks with focal losses."""

_base_ = '../_base_/coco_mini.py'

bn = dict(type='BN', requires_grad=True)
model = dict(
    type='CondInst',
    data_preprocessor=_base_.padded,
    # Without pretrained weights every layer has to learn, batch norm's statistics too.
    backbone=dict(type='ResNet', depth=18, norm_cfg=bn, norm_eval=False),
    neck=dict(
        type='FPN',
        in_channels=[64, 128, 256, 512],
        out_channels=64,
        start_level=1,
        add_extra_convs='on_output',
        num_outs=4,
        relu_before_extra_convs=True,
        norm_cfg=bn,
    ),
    bbox_head=dict(
        type='CondInstBboxHead',
        num_params=169,
        num_classes=80,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        strides=[8, 16, 32, 64],
        regress_ranges=((-1, 32), (32, 64), (64, 128), (128, 1e8)),
        norm_cfg=bn,
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        conv_bias=True,
        loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    mask_head=dict(
        type='CondInstMaskHead',
        num_layers=3,
        feat_channels=8,
        size_of_interest=8,
        mask_out_stride=4,
        max_masks_to_train=100,
        mask_feature_head=dict(
            in_channels=64,
            feat_channels=64,
            start_level=0,
            end_level=2,
            out_channels=8,
            mask_stride=8,
            num_stacked_convs=2,
            norm_cfg=bn,
        ),
        # The weight is that of MaskFormer's focal loss of masks.
        loss_mask=dict(type='FusedMaskFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=20.0),
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
        mask_thr=0.5,
    ),
)
