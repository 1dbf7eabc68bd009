"""mmsegmentation's FCN on ADE20K, 80 000 iterations, with focal losses; the weights are those of its cross-entropies."""

_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
custom_imports = dict(imports=['focal_plugin'], allow_failed_imports=False)
loss = dict(_delete_=True, type='FusedSegFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.5)
model = dict(
    decode_head=dict(loss_decode=dict(loss, loss_weight=1.0)),
    auxiliary_head=dict(loss_decode=dict(loss, loss_weight=0.4)),
)
