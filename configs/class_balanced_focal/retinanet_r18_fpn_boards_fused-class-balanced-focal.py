"""The demo's RetinaNet-R18 with the class-balanced focal loss; the counts are those of train.json."""

_base_ = '../retinanet/retinanet_r18_fpn_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='FusedClassBalancedFocalLoss',
            use_sigmoid=True,
            samples_per_class=[34, 39, 35, 34],
            class_beta=0.9999,
            gamma=2.0,
            loss_weight=1.0,
        )
    )
)
