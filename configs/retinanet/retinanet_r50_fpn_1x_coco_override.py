"""mmdet's own config with nothing replaced: under focal_plugin.override its 'FocalLoss' is the fused class."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['focal_plugin.override'], allow_failed_imports=False)
custom_hooks = [dict(type='FusedLossCheckHook')]
