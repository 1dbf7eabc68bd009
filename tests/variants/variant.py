"""The losses as a caller knows them: names, forms of the target, arguments with their defaults and what a campaign tries."""

from dataclasses import dataclass
from typing import Any

EXPONENTS = (0, 0.5, 1, 1.5, 2, 4, 5)
ALPHAS = (0, 0.25, 0.5, 0.75, 1, None, -1)
FLAGS = (False, True)


@dataclass(frozen=True)
class Variant:
    """One loss.

    Attributes:
        function: its name in focal_plugin.functional.
        kind: its name in focal_plugin.losses.
        tried: what is tried of each argument; the first is the default.
        vectors: arguments that may be one number a class, with what is tried of each number.
        per_row: 'none' gives one number a row, and 'mean' divides by the rows.
        scored: (labels, scores) are taken as a target.
        dense: values of pred's shape are taken as a target.
        probabilities: the flag that says whether pred holds probabilities, or None.
        silences: rows can be ignored.
    """

    function: str
    kind: str
    tried: dict[str, tuple]
    vectors: dict[str, tuple] | None = None
    per_row: bool = False
    scored: bool = False
    dense: bool = True
    probabilities: str | None = None
    silences: bool = True

    def complete(self, given: dict[str, Any]) -> dict[str, Any]:
        """All arguments, those that were not given at their defaults."""
        return {name: values[0] for name, values in self.tried.items()} | given


_GAMMA, _ALPHA = (2.0, *EXPONENTS), (0.25, *ALPHAS)
_PER_CLASS = {'gamma': (0.0, 0.5, 1.0, 2.0, 5.0), 'alpha': (0.0, 0.1, 0.25, 0.75, 1.0)}

VARIANTS = {
    'focal': Variant(
        'sigmoid_focal_loss',
        'FusedFocalLoss',
        {'gamma': _GAMMA, 'alpha': _ALPHA},
        vectors=_PER_CLASS,
        probabilities='activated',
    ),
    'focal_star': Variant(
        'sigmoid_focal_star_loss',
        'FusedFocalStarLoss',
        {'gamma': (1.0, 0.5, 2, 4.0), 'beta': (0.0, 1.0, -1.5, 3), 'alpha': (None, *ALPHAS)},
        vectors={'gamma': (0.5, 1.0, 2.0, 4.0), 'alpha': _PER_CLASS['alpha']},
    ),
    'quality_focal': Variant(
        'quality_focal_loss',
        'FusedQualityFocalLoss',
        {'beta': _GAMMA},
        per_row=True,
        scored=True,
        probabilities='activated',
    ),
    'varifocal': Variant(
        'varifocal_loss',
        'FusedVarifocalLoss',
        {'alpha': (0.75, 0, 0.25, 1, 2.0), 'gamma': _GAMMA, 'iou_weighted': (True, False), 'detach_weight': FLAGS},
        scored=True,
    ),
    'gaussian_focal': Variant(
        'gaussian_focal_loss',
        'FusedGaussianFocalLoss',
        {
            'alpha': (2.0, *EXPONENTS, 0.001),
            'gamma': (4.0, *EXPONENTS),
            'pos_weight': (1.0, 0, 0.5, 3),
            'neg_weight': (1.0, 0, 0.5, 3),
        },
        probabilities='from_logits',
    ),
    'matchability_aware': Variant(
        'matchability_aware_loss',
        'FusedMatchabilityAwareLoss',
        {'gamma': (1.5, *EXPONENTS), 'mal_alpha': (1.0, 0, 0.5, 2)},
        per_row=True,
        scored=True,
    ),
    'iou_aware_bce': Variant(
        'iou_aware_bce_loss',
        'FusedIoUAwareBCELoss',
        {'k': (0.25, 0, 0.5, 0.75, 1), 'gamma': _GAMMA, 'detach_weight': FLAGS},
        per_row=True,
        scored=True,
    ),
    'position_supervised': Variant(
        'position_supervised_loss',
        'FusedPositionSupervisedLoss',
        {'alpha': (0.25, 0, 0.5, 1), 'gamma': _GAMMA, 'normalize': ('none', 'none', 'batch')},
        per_row=True,
        scored=True,
    ),
    'equalized_focal': Variant(
        'equalized_focal_loss',
        'FusedEqualizedFocalLoss',
        {'gamma': (2.0, 0.5, 1, 1.5, 5), 'alpha': _ALPHA, 'scale': (8.0, 0, 2), 'ratio': (1.0, 0, 0.625, 0.875)},
        vectors={'ratio': (0.0, 0.25, 0.5, 0.875, 1.0)},
    ),
    'class_balanced_focal': Variant(
        'class_balanced_focal_loss',
        'FusedClassBalancedFocalLoss',
        {'samples_per_class': (None,), 'class_beta': (0.9999, 0, 0.5, 0.999), 'gamma': _GAMMA},
        dense=False,
    ),
    'poly_focal': Variant(
        'poly_focal_loss',
        'FusedPolyFocalLoss',
        {'epsilon': (1.0, -1, 0, 0.5, 2), 'gamma': _GAMMA, 'alpha': _ALPHA, 'alpha_on_poly': FLAGS},
        vectors=_PER_CLASS,
    ),
    'asymmetric': Variant(
        'asymmetric_loss',
        'FusedAsymmetricLoss',
        {
            'gamma_pos': (1.0, *EXPONENTS),
            'gamma_neg': (4.0, *EXPONENTS),
            'clip': (0.05, 0, 0.25),
            'detach_weight': FLAGS,
        },
    ),
    'reduced_focal': Variant(
        'reduced_focal_loss',
        'FusedReducedFocalLoss',
        {'threshold': (0.5, 0.1, 0.3, 0.9, 1), 'gamma': (2.0, *EXPONENTS, 8), 'alpha': (None, *ALPHAS)},
        vectors=_PER_CLASS,
    ),
    'softmax_focal': Variant(
        'softmax_focal_loss',
        'FusedSoftmaxFocalLoss',
        {'gamma': _GAMMA, 'alpha': (0.25, 0, 0.5, 1, None)},
        vectors=_PER_CLASS,
        per_row=True,
        dense=False,
    ),
    'mask_focal': Variant(
        'mask_focal_loss',
        'FusedMaskFocalLoss',
        {'gamma': _GAMMA, 'alpha': _ALPHA},
        per_row=True,
        probabilities='activated',
        silences=False,
    ),
}
