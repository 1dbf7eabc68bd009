"""RTMDet-Ins-tiny on COCO, 300 epochs, its masks learnt with a focal loss in place of the Dice loss."""

_base_ = 'rtmdet-ins_tiny_8xb32-300e_coco_fused-quality-focal.py'
model = dict(
    bbox_head=dict(
        loss_mask=dict(
            _delete_=True, type='FusedMaskFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0
        )
    )
)
