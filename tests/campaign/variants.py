"""The losses that a campaign calls: the variants, and the focal loss of masks, which has a function and a class too."""

from tests.variants import VARIANTS as OF_LOGITS
from tests.variants.variant import ALPHA, GAMMA, Variant

VARIANTS = OF_LOGITS | {
    'mask_focal': Variant(
        kind='FusedMaskFocalLoss',
        function='mask_focal_loss',
        tried={'gamma': GAMMA, 'alpha': ALPHA},
        per_row=True,
        probabilities='activated',
        silences=False,
    ),
}
