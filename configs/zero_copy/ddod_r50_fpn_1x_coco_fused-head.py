"""DDOD-R50 on COCO, 12 epochs, whose head hands its logits to the loss without copying them."""

_base_ = ['mmdet::ddod/ddod_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        type='FusedDDODHead',
        loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    )
)
