"""DINO-R50, 4 scales, with the quality focal loss on COCO, 12 epochs."""

_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='FusedQualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)
    )
)
