"""RTMDet-Ins-tiny on COCO, 300 epochs, whose head hands its class logits to the loss without copying them."""

_base_ = '../rtmdet/rtmdet-ins_tiny_8xb32-300e_coco_fused-quality-focal.py'
model = dict(bbox_head=dict(type='FusedRTMDetInsSepBNHead'))
