"""QueryInst-R50 on COCO, 12 epochs: the same loss in each of its six stages, a list that no config can change in part."""

_base_ = ['mmdet::queryinst/queryinst_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
loss_cls = dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
model = dict(roi_head=dict(bbox_head=[dict(head, loss_cls=loss_cls) for head in _base_.model.roi_head.bbox_head]))
