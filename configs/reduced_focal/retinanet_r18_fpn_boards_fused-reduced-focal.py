"""The demo's RetinaNet-R18 with the reduced focal loss."""

_base_ = '../retinanet/retinanet_r18_fpn_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedReducedFocalLoss', use_sigmoid=True, threshold=0.5, gamma=2.0, alpha=None, loss_weight=1.0
        )
    )
)
