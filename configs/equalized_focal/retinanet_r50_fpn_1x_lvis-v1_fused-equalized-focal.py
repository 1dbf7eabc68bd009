"""RetinaNet-R50 with the equalized focal loss on LVIS v1 (1203 classes), 12 epochs."""

_base_ = '../retinanet/retinanet_r50_fpn_1x_lvis-v1_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedEqualizedFocalLoss',
            use_sigmoid=True,
            num_classes=1203,
            gamma=2.0,
            alpha=0.25,
            scale=8.0,
            loss_weight=1.0,
        )
    )
)
