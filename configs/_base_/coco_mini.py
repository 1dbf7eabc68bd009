"""Fourteen photos of COCO with masks, and a schedule in which a small model learns them by heart on a CPU.

They are too few to learn from: training and test are on the same photos. Paths are relative to the repository's root.
"""

_base_ = ['mmdet::_base_/default_runtime.py', 'focal_plugin.py']

data_root = 'tests/data/coco_mini/'
scale = (256, 192)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    # What is smaller is no object any more at this size.
    dict(type='FilterAnnotations', min_gt_bbox_wh=(8, 8)),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# Both cores are busy with the model: loading in the same process is cheaper than workers beside it.
loader = dict(batch_size=4, num_workers=0, persistent_workers=False)
dataset = dict(
    type='CocoDataset', data_root=data_root, ann_file='val.json', data_prefix=dict(img='images/'), backend_args=None
)
train_dataloader = dict(
    **loader,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**dataset, filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline),
)
test_dataloader = dict(
    **loader,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, test_mode=True, pipeline=test_pipeline),
)
test_evaluator = dict(type='CocoMetric', ann_file=data_root + 'val.json', metric=['bbox', 'segm'])
# No photos are left to validate on.
val_dataloader = val_evaluator = val_cfg = None

padded = dict(
    type='DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_mask=True,
    pad_size_divisor=32,
)

epochs = 100
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs)
test_cfg = dict(type='TestLoop')
# From random weights AdamW learns far faster than SGD.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', T_max=epochs, eta_min_ratio=0.01, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=4),
    checkpoint=dict(interval=epochs, save_optimizer=False, save_param_scheduler=False),
)
log_processor = dict(window_size=4)
randomness = dict(seed=0)
