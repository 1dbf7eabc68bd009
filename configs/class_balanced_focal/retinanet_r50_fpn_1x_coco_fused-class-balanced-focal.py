"""RetinaNet-R50 with the class-balanced focal loss on COCO, 12 epochs.

Give samples_per_class on the command line: README.md shows how to count.
"""

_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
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
