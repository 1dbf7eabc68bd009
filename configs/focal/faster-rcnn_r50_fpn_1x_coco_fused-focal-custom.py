"""Faster R-CNN-R50 on COCO, 12 epochs, its box head a sigmoid without a background channel."""

_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                type='FusedFocalCustomLoss', use_sigmoid=True, num_classes=80, gamma=2.0, alpha=0.25, loss_weight=1.0
            )
        )
    )
)
