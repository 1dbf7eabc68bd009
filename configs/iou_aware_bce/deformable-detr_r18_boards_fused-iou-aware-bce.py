"""A small Deformable DETR-R18 with the IoU-aware BCE loss on the photos of the demo."""

_base_ = '../focal/deformable-detr_r18_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='FusedIoUAwareBCELoss', use_sigmoid=True, k=0.25, gamma=2.0, loss_weight=2.0)
    )
)
