"""mmdet's detectors that select queries without the logits of every token; importing this package registers them."""

from focal_plugin.detectors.deformable_detr import FusedDeformableDETR
from focal_plugin.detectors.dino import FusedDINO

__all__ = ['FusedDINO', 'FusedDeformableDETR']
