"""RetinaNet-R50 on COCO, 12 epochs, in bf16, whose range needs no loss scale."""

_base_ = 'retinanet_r50_fpn_1x_coco_fused-focal.py'
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0)
