"""mmyolo's YOLOv5-s on COCO, 300 epochs, with a quality focal loss of its maps of objectness.

The maps are (B, A, H, W) and the loss sums their A = 3 anchors, as mmdet's does: its mean is that of the places, three
times the mean of the elements that the cross-entropy has, so that its weight is a third of the base's. Nobody has tuned it.
"""

_base_ = 'mmyolo::yolov5/yolov5_s-v61_syncbn_fast_8xb16-300e_coco.py'
custom_imports = dict(imports=['focal_plugin'], allow_failed_imports=False)
model = dict(
    bbox_head=dict(
        loss_obj=dict(
            _delete_=True,
            type='mmdet.FusedQualityFocalLoss',
            use_sigmoid=True,
            beta=2.0,
            reduction='mean',
            loss_weight=1 / 3,
        )
    )
)
