"""Deformable DETR-R50 on COCO, 50 epochs."""

_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0))
)
