"""Deformable DETR-R50 with the position-supervised loss on COCO, 50 epochs."""

_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedPositionSupervisedLoss',
            use_sigmoid=True,
            alpha=0.25,
            gamma=2.0,
            normalize='none',
            loss_weight=2.0,
        )
    )
)
