"""RetinaNet-R50 with the class-balanced focal loss on LVIS v1 (1203 classes), 12 epochs.

Give samples_per_class on the command line: README.md shows how to count.
"""

_base_ = '../retinanet/retinanet_r50_fpn_1x_lvis-v1_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='FusedClassBalancedFocalLoss',
            use_sigmoid=True,
            class_beta=0.9999,
            gamma=2.0,
            loss_weight=1.0,
        )
    )
)
