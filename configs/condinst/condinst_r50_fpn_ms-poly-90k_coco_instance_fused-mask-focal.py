"""CondInst-R50 on COCO, 90000 iterations, its masks learnt with a focal loss in place of the Dice loss."""

_base_ = 'condinst_r50_fpn_ms-poly-90k_coco_instance_fused-focal.py'
model = dict(
    mask_head=dict(
        loss_mask=dict(
            _delete_=True, type='FusedMaskFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0
        )
    )
)
