"""The demo's RetinaNet-R18 with the FL*."""

_base_ = '../retinanet/retinanet_r18_fpn_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(type='FusedFocalStarLoss', use_sigmoid=True, gamma=2.0, beta=1.0, alpha=0.25, loss_weight=1.0)
    )
)
