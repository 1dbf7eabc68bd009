"""A small MaskFormer-R18 learns fourteen photos by heart, on a CPU: instances instead of a panoptic segmentation."""

_base_ = '../_base_/coco_mini.py'

attention = dict(embed_dims=64, num_heads=4, dropout=0.0, batch_first=True)
ffn = dict(embed_dims=64, feedforward_channels=256, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type='ReLU', inplace=True))
model = dict(
    type='MaskFormer',
    data_preprocessor=_base_.padded,
    # Without pretrained weights every layer has to learn, batch norm's statistics too.
    backbone=dict(type='ResNet', depth=18, norm_eval=False),
    panoptic_head=dict(
        type='MaskFormerHead',
        in_channels=[64, 128, 256, 512],
        feat_channels=64,
        out_channels=64,
        num_things_classes=80,
        num_stuff_classes=0,
        num_queries=30,
        pixel_decoder=dict(
            type='TransformerEncoderPixelDecoder',
            norm_cfg=dict(type='GN', num_groups=32),
            act_cfg=dict(type='ReLU'),
            encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=dict(num_feats=32, normalize=True),
        ),
        enforce_decoder_input_project=False,
        positional_encoding=dict(num_feats=32, normalize=True),
        transformer_decoder=dict(
            num_layers=2,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
            return_intermediate=True,
        ),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0, class_weight=[1.0] * 80 + [0.1]),
        loss_mask=dict(type='FusedFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=20.0),
        loss_dice=dict(type='DiceLoss', use_sigmoid=True, activate=True, naive_dice=True, eps=1.0, loss_weight=1.0),
    ),
    panoptic_fusion_head=dict(
        type='MaskFormerFusionHead', num_things_classes=80, num_stuff_classes=0, loss_panoptic=None
    ),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='ClassificationCost', weight=1.0),
                dict(type='FusedBinaryFocalLossCost', weight=20.0),
                dict(type='DiceCost', weight=1.0, pred_act=True, eps=1.0),
            ],
        ),
        sampler=dict(type='MaskPseudoSampler'),
    ),
    test_cfg=dict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=30),
)
