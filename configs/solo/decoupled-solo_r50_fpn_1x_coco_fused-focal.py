"""Decoupled SOLO-R50 on COCO, 12 epochs."""

_base_ = ['mmdet::solo/decoupled-solo_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    mask_head=dict(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0))
)
