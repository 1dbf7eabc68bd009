"""RetinaNet-R18 learns four kinds of circuit boards from 120 photos, from scratch, on two CPU cores in minutes.

What differs from mmdet's RetinaNet-R18, and why, is said where it differs. Paths are relative to the repository's root.
"""

_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', '../_base_/focal_plugin.py']

bn = dict(type='BN', requires_grad=True)
model = dict(
    # 192 x 144 is no multiple of 32; padding it to one would add a tenth of work on grey.
    data_preprocessor=dict(pad_size_divisor=16),
    # Without pretrained weights every layer has to learn, batch norm's statistics too.
    backbone=dict(init_cfg=None, frozen_stages=-1, norm_eval=False),
    # Batch norm lets neck and head learn from scratch at a high rate; 64 channels and two convolutions are plenty for
    # four classes; the largest board fits the third level.
    neck=dict(out_channels=64, num_outs=3, norm_cfg=bn),
    bbox_head=dict(
        num_classes=4,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=bn,
        # Boards are about 3 : 2, lying or standing: four anchors a place, of 32 to 181 pixels, where the base has nine.
        anchor_generator=dict(scales_per_octave=2, ratios=[0.7, 1.4], strides=[8, 16, 32]),
        loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    ),
)

data_root = 'tests/data/boards/'
metainfo = dict(
    classes=('Arduino', 'ESP8266', 'Heltec', 'Raspberry'),
    palette=[(230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0)],
)
# Small pictures buy more passes over the photos in the same time.
scale = (192, 144)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # 120 photos are soon known by heart: scale, place and mirroring vary. Colours stay, they tell the boards apart.
    dict(type='RandomResize', scale=scale, ratio_range=(0.7, 1.4), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(scale[1], scale[0])),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='Pad', size=scale, pad_val=dict(img=(114, 114, 114))),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# Both cores are busy with the model: loading in the same process is cheaper than workers beside it.
loader = dict(batch_size=8, num_workers=0, persistent_workers=False)
dataset = dict(data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/'))
train_dataloader = dict(**loader, dataset=dict(**dataset, ann_file='train.json', pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(**dataset, ann_file='val.json', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'val.json', classwise=True)
test_evaluator = val_evaluator

epochs = 28
train_cfg = dict(max_epochs=epochs, val_interval=7)
# AdamW with a short warm-up and a cosine: from scratch, far faster than the base's SGD.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=epochs, eta_min_ratio=0.01, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=5),
    checkpoint=dict(interval=epochs, save_optimizer=False, save_param_scheduler=False),
)
# Losses in the log are means over one pass.
log_processor = dict(window_size=15)
# Several processes (torchrun) work without a GPU too: gloo joins them, and no process names a device.
env_cfg = dict(dist_cfg=dict(backend='gloo'))
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
randomness = dict(seed=0)
