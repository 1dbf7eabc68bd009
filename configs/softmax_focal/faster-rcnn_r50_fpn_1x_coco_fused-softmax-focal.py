"""Faster R-CNN-R50 with the softmax focal loss in its box head on COCO, 12 epochs."""

_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(type='FusedSoftmaxFocalLoss', use_sigmoid=False, gamma=2.0, alpha=0.25, loss_weight=1.0)
        )
    )
)
