"""Mask2Former-R50 on COCO, 50 epochs, its masks learnt and matched with a focal loss in place of the cross-entropy."""

_base_ = ['mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', '../_base_/focal_plugin.py']
match_costs = [
    dict(type='FusedBinaryFocalLossCost', weight=5.0) if cost['type'] == 'CrossEntropyLossCost' else cost
    for cost in _base_.model.train_cfg.assigner.match_costs
]
model = dict(
    panoptic_head=dict(loss_mask=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=5.0)),
    train_cfg=dict(assigner=dict(match_costs=match_costs)),
)
