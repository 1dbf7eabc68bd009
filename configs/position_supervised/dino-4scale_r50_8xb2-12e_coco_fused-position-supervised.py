"""DINO-R50, 4 scales, with the position-supervised loss on COCO, 12 epochs."""

_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedPositionSupervisedLoss',
            use_sigmoid=True,
            alpha=0.25,
            gamma=2.0,
            normalize='none',
            loss_weight=1.0,
        )
    )
)
