"""Cascade Mask R-CNN-R50 on COCO, 12 epochs, its masks learnt with a focal loss."""

_base_ = ['mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    roi_head=dict(
        mask_head=dict(
            loss_mask=dict(
                _delete_=True, type='FusedMaskFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0
            )
        )
    )
)
