"""A small Mask R-CNN-R18 learns fourteen photos by heart, on a CPU."""

_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../_base_/coco_mini.py']

bn = dict(type='BN', requires_grad=True)
model = dict(
    # Without pretrained weights every layer has to learn, batch norm's statistics too.
    backbone=dict(depth=18, init_cfg=None, frozen_stages=-1, norm_eval=False),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64, norm_cfg=bn),
    # Objects of photos a fifth as wide are a fifth as wide.
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64, finest_scale=28),
        mask_head=dict(
            num_convs=2,
            in_channels=64,
            conv_out_channels=64,
            norm_cfg=bn,
            loss_mask=dict(
                _delete_=True, type='FusedMaskFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0
            ),
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
