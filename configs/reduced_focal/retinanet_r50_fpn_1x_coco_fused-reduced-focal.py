"""RetinaNet-R50 with the reduced focal loss on COCO, 12 epochs."""

_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedReducedFocalLoss', use_sigmoid=True, threshold=0.5, gamma=2.0, alpha=None, loss_weight=1.0
        )
    )
)
