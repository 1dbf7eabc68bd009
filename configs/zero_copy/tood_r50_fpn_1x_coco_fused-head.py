"""TOOD-R50 on COCO, 12 epochs, whose head hands its probabilities to the loss without copying them."""

_base_ = '../quality_focal/tood_r50_fpn_1x_coco_fused-quality-focal.py'
model = dict(bbox_head=dict(type='FusedTOODHead'))
