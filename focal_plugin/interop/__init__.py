"""Other libraries' focal losses under their own signatures: moving over is changing an import.

    from torchvision.ops import sigmoid_focal_loss         # before
    from focal_plugin.interop.torchvision import sigmoid_focal_loss

Each module has the names, argument orders, defaults and reductions of its namesake, and needs none of it installed.
Unlike their namesakes all are exact at every logit and in half types, and give 0 for the mean of no elements; fvcore's
and torchvision's with gamma = 0 are torch's cross-entropy to the bit, as their users expect.
"""

from focal_plugin.interop import fvcore, mmcv, mmdet, torchvision

__all__ = ['fvcore', 'mmcv', 'mmdet', 'torchvision']
