"""CenterNet-R18 on COCO, 28 epochs of five passes."""

_base_ = ['mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py', '../_base_/focal_plugin.py']
model = dict(
    bbox_head=dict(
        loss_center_heatmap=dict(type='FusedGaussianFocalLoss', use_sigmoid=True, alpha=2.0, gamma=4.0, loss_weight=1.0)
    )
)
