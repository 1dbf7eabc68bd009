"""A small DINO-R18 with the matchability-aware loss on the photos of the demo."""

_base_ = '../focal/dino_r18_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='FusedMatchabilityAwareLoss',
            use_sigmoid=True,
            gamma=1.5,
            mal_alpha=1.0,
            loss_weight=1.0,
        )
    )
)
