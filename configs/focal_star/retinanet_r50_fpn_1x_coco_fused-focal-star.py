"""RetinaNet-R50 with the FL* on COCO, 12 epochs."""

_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(type='FusedFocalStarLoss', use_sigmoid=True, gamma=2.0, beta=1.0, alpha=0.25, loss_weight=1.0)
    )
)
