"""RTMDet-tiny on COCO, 300 epochs, whose head hands its logits to the loss without copying them."""

_base_ = '../quality_focal/rtmdet_tiny_8xb32-300e_coco_fused-quality-focal.py'
model = dict(bbox_head=dict(type='FusedRTMDetSepBNHead'))
