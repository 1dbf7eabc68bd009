"""A small DINO-R18 with the position-supervised loss on the photos of the demo."""

_base_ = '../focal/dino_r18_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='FusedPositionSupervisedLoss',
            use_sigmoid=True,
            alpha=0.25,
            gamma=2.0,
            normalize='none',
            loss_weight=1.0,
        )
    )
)
