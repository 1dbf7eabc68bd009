"""A small DINO-R18 on the photos of the demo."""

_base_ = 'deformable-detr_r18_boards_fused-focal.py'
model = dict(
    type='DINO',
    as_two_stage=True,
    positional_encoding=dict(offset=0.0, temperature=20),
    dn_cfg=dict(
        label_noise_scale=0.5, box_noise_scale=1.0, group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=20)
    ),
    bbox_head=dict(type='DINOHead', loss_cls=dict(loss_weight=1.0)),
)
