"""DINO-R50, 4 scales, on COCO, 12 epochs."""

_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0))
)
