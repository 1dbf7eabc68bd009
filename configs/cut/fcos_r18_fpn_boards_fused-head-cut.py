"""A small FCOS-R18 on the photos of the demo, whose head never holds its class logits in training.

Its class convolution is of V3Det's kind, so that `bash tools/demo.sh --classes 13204` can train it with as many classes.
"""

_base_ = '../focal/fcos_r18_fpn_boards_fused-focal.py'
model = dict(
    bbox_head=dict(
        type='FusedFCOSHead',
        cut=True,
        # Logits are cosines times this number. Of 64 channels random cosines are large: V3Det's 50 would begin at a loss of
        # thousands.
        cls_predictor_cfg=dict(type='NormedLinear', tempearture=10, bias=True),
        loss_cls=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    )
)
