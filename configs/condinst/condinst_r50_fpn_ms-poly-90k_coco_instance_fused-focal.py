"""CondInst-R50 on COCO, 90000 iterations."""

_base_ = ['mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0))
)
