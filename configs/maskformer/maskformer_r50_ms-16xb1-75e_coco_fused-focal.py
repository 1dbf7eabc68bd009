"""MaskFormer-R50 on COCO panoptic, 75 epochs: the focal loss of its masks, which it gives 1 - mask as labels."""

_base_ = ['mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py', '../_base_/focal_plugin.py']
match_costs = [
    dict(type='FusedBinaryFocalLossCost', weight=20.0) if cost['type'] == 'FocalLossCost' else cost
    for cost in _base_.model.train_cfg.assigner.match_costs
]
model = dict(
    panoptic_head=dict(
        loss_mask=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=20.0)
    ),
    train_cfg=dict(assigner=dict(match_costs=match_costs)),
)
