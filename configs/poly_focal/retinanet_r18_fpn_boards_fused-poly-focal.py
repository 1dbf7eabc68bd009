"""The demo's RetinaNet-R18 with the poly focal loss."""

_base_ = '../retinanet/retinanet_r18_fpn_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(type='FusedPolyFocalLoss', use_sigmoid=True, epsilon=1.0, gamma=2.0, alpha=0.25, loss_weight=1.0)
    )
)
