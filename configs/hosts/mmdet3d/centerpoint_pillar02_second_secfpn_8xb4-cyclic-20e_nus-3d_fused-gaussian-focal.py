"""mmdet3d's CenterPoint on nuScenes, 20 epochs: a heat map per task, which the head hands over as probabilities."""

_base_ = 'mmdet3d::centerpoint/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
custom_imports = dict(imports=['focal_plugin'], allow_failed_imports=False)
model = dict(pts_bbox_head=dict(loss_cls=dict(type='mmdet.FusedGaussianFocalLoss', reduction='mean')))
