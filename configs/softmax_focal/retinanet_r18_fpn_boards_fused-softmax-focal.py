"""The demo's RetinaNet-R18 with a softmax over four boards and the background."""

_base_ = '../retinanet/retinanet_r18_fpn_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(type='FusedSoftmaxFocalLoss', use_sigmoid=False, gamma=2.0, alpha=0.25, loss_weight=1.0)
    )
)
