"""mmyolo's RTMDet-s on COCO, 300 epochs: (labels, qualities), one row per place of all levels and images."""

_base_ = 'mmyolo::rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py'
custom_imports = dict(imports=['focal_plugin'], allow_failed_imports=False)
model = dict(
    bbox_head=dict(loss_cls=dict(type='mmdet.FusedQualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0))
)
