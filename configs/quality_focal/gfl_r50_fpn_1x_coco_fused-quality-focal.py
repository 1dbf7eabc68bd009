"""GFL-R50 on COCO, 12 epochs."""

_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(bbox_head=dict(loss_cls=dict(type='FusedQualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)))
