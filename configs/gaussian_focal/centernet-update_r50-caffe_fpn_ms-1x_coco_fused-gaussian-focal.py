"""CenterNet2's first stage, R50 on COCO, 12 epochs."""

_base_ = ['mmdet::centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedGaussianFocalLoss',
            use_sigmoid=True,
            alpha=2.0,
            gamma=4.0,
            pos_weight=0.25,
            neg_weight=0.75,
            loss_weight=1.0,
        )
    )
)
