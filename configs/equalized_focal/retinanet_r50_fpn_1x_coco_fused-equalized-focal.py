"""RetinaNet-R50 with the equalized focal loss on COCO, 12 epochs."""

_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedEqualizedFocalLoss',
            use_sigmoid=True,
            num_classes=80,
            gamma=2.0,
            alpha=0.25,
            scale=8.0,
            loss_weight=1.0,
        )
    )
)
