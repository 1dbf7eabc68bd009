"""FCOS-R50 on COCO, 12 epochs, whose head hands its logits to the loss without copying them."""

_base_ = '../focal/fcos_r50-caffe_fpn_gn-head_1x_coco_fused-focal.py'
model = dict(bbox_head=dict(type='FusedFCOSHead'))
