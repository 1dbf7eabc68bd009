"""RTMDet-Ins-tiny on COCO, 300 epochs. Its base has hooks of its own, so ours joins them here."""

_base_ = 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['focal_plugin'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, dict(type='FusedLossCheckHook')]
model = dict(bbox_head=dict(loss_cls=dict(type='FusedQualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)))
