"""Decoupled SOLO-R50 on COCO, 12 epochs, its masks learnt with a focal loss: the head hands it probabilities."""

_base_ = 'decoupled-solo_r50_fpn_1x_coco_fused-focal.py'
model = dict(
    mask_head=dict(
        loss_mask=dict(
            _delete_=True,
            type='FusedMaskFocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=3.0,
            activated=True,
        )
    )
)
