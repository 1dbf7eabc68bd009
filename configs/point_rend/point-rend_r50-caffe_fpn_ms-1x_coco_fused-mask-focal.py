"""PointRend-R50 on COCO, 12 epochs, its coarse masks and its points learnt with a focal loss."""

_base_ = ['mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', '../_base_/focal_plugin.py']
loss = dict(_delete_=True, type='FusedMaskFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
model = dict(roi_head=dict(mask_head=dict(loss_mask=loss), point_head=dict(loss_point=loss)))
