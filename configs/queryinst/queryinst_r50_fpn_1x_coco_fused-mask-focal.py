"""QueryInst-R50 on COCO, 12 epochs, its masks learnt with a focal loss: mmdet hands it probabilities."""

_base_ = 'queryinst_r50_fpn_1x_coco_fused-focal.py'
loss_mask = dict(type='FusedMaskFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=8.0, activated=True)
model = dict(roi_head=dict(mask_head=[dict(head, loss_mask=loss_mask) for head in _base_.model.roi_head.mask_head]))
