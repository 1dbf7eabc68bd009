"""Deformable DETR-R50 with the quality focal loss on COCO, 50 epochs."""

_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='FusedQualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=2.0)
    )
)
