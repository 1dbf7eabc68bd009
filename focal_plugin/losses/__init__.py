"""The registry classes, one file for each variant; importing this package registers them in mmdet."""

from focal_plugin.losses.focal import FusedFocalLoss

__all__ = ['FusedFocalLoss']
