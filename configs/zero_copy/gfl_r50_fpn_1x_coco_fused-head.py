"""GFL-R50 on COCO, 12 epochs, whose head hands its logits to the loss without copying them."""

_base_ = '../quality_focal/gfl_r50_fpn_1x_coco_fused-quality-focal.py'
model = dict(bbox_head=dict(type='FusedGFLHead'))
