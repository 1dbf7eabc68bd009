"""Costs of Hungarian matching that are a fused loss's own; importing this package registers them in mmdet."""

from focal_plugin.match_costs.focal import FusedBinaryFocalLossCost, FusedFocalLossCost

__all__ = ['FusedBinaryFocalLossCost', 'FusedFocalLossCost']
