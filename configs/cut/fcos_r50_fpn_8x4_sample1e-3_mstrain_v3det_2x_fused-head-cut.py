"""FCOS-R50 on V3Det (13204 classes), 275040 iterations, whose head never holds its class logits in training."""

_base_ = ['mmdet::v3det/fcos_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        type='FusedFCOSHead',
        cut=True,
        # The base's FocalCustomLoss is this loss; it would also log an accuracy, for which it makes the positives' logits.
        loss_cls=dict(_delete_=True, type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    )
)
