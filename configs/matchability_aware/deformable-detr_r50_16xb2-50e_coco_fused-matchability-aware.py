"""Deformable DETR-R50 with the matchability-aware loss on COCO, 50 epochs."""

_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='FusedMatchabilityAwareLoss',
            use_sigmoid=True,
            gamma=1.5,
            mal_alpha=1.0,
            loss_weight=2.0,
        )
    )
)
