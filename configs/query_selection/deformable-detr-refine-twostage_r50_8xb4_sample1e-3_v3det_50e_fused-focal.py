"""Two-stage Deformable DETR-R50 on V3Det (13204 classes), 50 epochs, without the class logits of every token."""

_base_ = ['mmdet::v3det/deformable-detr-refine-twostage_r50_8xb4_sample1e-3_v3det_50e.py', '../_base_/focal_plugin.py']
model = dict(
    type='FusedDeformableDETR',
    bbox_head=dict(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)),
    train_cfg=dict(
        assigner=dict(
            match_costs=[
                dict(type='FusedFocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ]
        )
    ),
)
