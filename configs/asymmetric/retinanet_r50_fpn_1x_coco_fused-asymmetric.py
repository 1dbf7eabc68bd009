"""RetinaNet-R50 with the asymmetric loss on COCO, 12 epochs."""

_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/focal_plugin.py']
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
