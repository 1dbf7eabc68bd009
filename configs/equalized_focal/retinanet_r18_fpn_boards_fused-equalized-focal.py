"""The demo's RetinaNet-R18 with the equalized focal loss."""

_base_ = '../retinanet/retinanet_r18_fpn_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedEqualizedFocalLoss',
            use_sigmoid=True,
            num_classes=4,
            gamma=2.0,
            alpha=0.25,
            scale=8.0,
            loss_weight=1.0,
        )
    )
)
