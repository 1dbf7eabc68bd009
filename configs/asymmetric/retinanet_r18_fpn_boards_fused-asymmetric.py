"""The demo's RetinaNet-R18 with the asymmetric loss."""

_base_ = '../retinanet/retinanet_r18_fpn_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='FusedAsymmetricLoss',
            use_sigmoid=True,
            gamma_pos=1.0,
            gamma_neg=4.0,
            clip=0.05,
            loss_weight=1.0,
        )
    )
)
