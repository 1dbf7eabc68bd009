"""Deformable DETR-R50 with the varifocal loss on COCO, 50 epochs."""

_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedVarifocalLoss', use_sigmoid=True, alpha=0.75, gamma=2.0, iou_weighted=True, loss_weight=2.0
        )
    )
)
