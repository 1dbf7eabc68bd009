"""TOOD-R50 on COCO, 12 epochs: its head hands over probabilities, so both its losses are activated."""

_base_ = ['mmdet::tood/tood_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        initial_loss_cls=dict(
            type='FusedFocalLoss', use_sigmoid=True, activated=True, gamma=2.0, alpha=0.25, loss_weight=1.0
        ),
        loss_cls=dict(type='FusedQualityFocalLoss', use_sigmoid=True, activated=True, beta=2.0, loss_weight=1.0),
    )
)
