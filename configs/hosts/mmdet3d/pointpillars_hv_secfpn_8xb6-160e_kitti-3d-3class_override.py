"""mmdet3d's PointPillars on KITTI, 160 epochs, its config untouched: under focal_plugin.override 'mmdet.FocalLoss' is fused.

Another name would change the training: mmdet3d's Anchor3DHead samples its anchors and divides by the negatives too where
the loss's type is neither 'mmdet.FocalLoss' nor 'mmdet.GHMC'.
"""

_base_ = 'mmdet3d::pointpillars/pointpillars_hv_secfpn_8xb6-160e_kitti-3d-3class.py'
custom_imports = dict(imports=['focal_plugin.override'], allow_failed_imports=False)
