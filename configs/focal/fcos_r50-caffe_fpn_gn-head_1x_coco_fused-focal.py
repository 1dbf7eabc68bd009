"""FCOS-R50 on COCO, 12 epochs."""

_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0))
)
