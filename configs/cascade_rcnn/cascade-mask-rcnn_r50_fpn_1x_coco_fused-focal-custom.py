"""Cascade Mask R-CNN-R50 on COCO, 12 epochs, masks and the classes of all three stages learnt with focal losses."""

_base_ = 'cascade-mask-rcnn_r50_fpn_1x_coco_fused-mask-focal.py'
loss_cls = dict(type='FusedFocalCustomLoss', use_sigmoid=True, num_classes=80, gamma=2.0, alpha=0.25, loss_weight=1.0)
model = dict(roi_head=dict(bbox_head=[dict(head, loss_cls=loss_cls) for head in _base_.model.roi_head.bbox_head]))
