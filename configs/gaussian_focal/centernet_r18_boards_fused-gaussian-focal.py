"""A small CenterNet-R18 on the photos of the demo."""

_base_ = '../retinanet/retinanet_r18_fpn_boards_fused-focal.py'
model = dict(
    type='CenterNet',
    # Three deconvolutions from a stride of 32: sides have to be its multiples.
    data_preprocessor=dict(pad_size_divisor=32),
    neck=dict(
        _delete_=True,
        type='CTResNetNeck',
        in_channels=512,
        num_deconv_filters=(64, 64, 64),
        num_deconv_kernels=(4, 4, 4),
        use_dcn=False,
    ),
    bbox_head=dict(
        _delete_=True,
        type='CenterNetHead',
        num_classes=4,
        in_channels=64,
        feat_channels=64,
        loss_center_heatmap=dict(
            type='FusedGaussianFocalLoss', use_sigmoid=True, alpha=2.0, gamma=4.0, loss_weight=1.0
        ),
        loss_wh=dict(type='L1Loss', loss_weight=0.1),
        loss_offset=dict(type='L1Loss', loss_weight=1.0),
    ),
    train_cfg=None,
    test_cfg=dict(_delete_=True, topk=100, local_maximum_kernel=3, max_per_img=100),
)

test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='Resize', scale=(192, 144), keep_ratio=True),
    # The head reads the border that this transform leaves.
    dict(
        type='RandomCenterCropPad',
        ratios=None,
        border=None,
        mean=[0, 0, 0],
        std=[1, 1, 1],
        to_rgb=True,
        test_mode=True,
        test_pad_mode=['logical_or', 31],
        test_pad_add_pix=1,
    ),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'border')),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
