"""mmyolo's PPYOLOE+-s on COCO, 80 epochs: dense qualities (B, N, C), summed, since the head itself divides by theirs."""

_base_ = 'mmyolo::ppyoloe/ppyoloe_plus_s_fast_8xb8-80e_coco.py'
custom_imports = dict(imports=['focal_plugin'], allow_failed_imports=False)
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='mmdet.FusedVarifocalLoss',
            use_sigmoid=True,
            alpha=0.75,
            gamma=2.0,
            iou_weighted=True,
            reduction='sum',
            loss_weight=1.0,
        )
    )
)
