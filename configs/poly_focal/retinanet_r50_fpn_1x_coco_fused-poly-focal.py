"""RetinaNet-R50 with the poly focal loss on COCO, 12 epochs."""

_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(type='FusedPolyFocalLoss', use_sigmoid=True, epsilon=1.0, gamma=2.0, alpha=0.25, loss_weight=1.0)
    )
)
