"""ATSS-R50 on COCO, 12 epochs, whose head hands its logits to the loss without copying them."""

_base_ = '../focal/atss_r50_fpn_1x_coco_fused-focal.py'
model = dict(bbox_head=dict(type='FusedATSSHead'))
