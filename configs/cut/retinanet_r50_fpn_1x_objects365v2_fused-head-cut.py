"""RetinaNet-R50 on Objects365 v2 (365 classes), 12 epochs, whose head never holds its class logits in training."""

_base_ = ['mmdet::objects365/retinanet_r50_fpn_1x_objects365v2.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        type='FusedRetinaHead',
        cut=True,
        loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    )
)
