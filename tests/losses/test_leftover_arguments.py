"""What a config inherits from the loss before: arguments of mmdet's other losses, and weights written into alpha."""

import pytest

from focal_plugin import losses
from focal_plugin.losses import FusedFocalLoss, FusedSoftmaxFocalLoss
from tests.losses.built import built

REMEDIES = {
    'bg_cls_weight': (FusedFocalLoss, r'last of C \+ 1 numbers in class_weight'),
    'bg_cls_weight, softmax': (FusedSoftmaxFocalLoss, "its channel's number in class_weight"),
    'label_smoothing': (FusedFocalLoss, 'dense target'),
    'label_smooth_val': (FusedFocalLoss, 'dense target'),
    'use_mask': (FusedFocalLoss, 'FusedMaskFocalLoss'),
    'avg_non_ignore': (FusedFocalLoss, 'avg_factor'),
    'eps': (losses.FusedAsymmetricLoss, 'leave it out'),
    'return_dict': (FusedSoftmaxFocalLoss, 'it has use_sigmoid, gamma, alpha, reduction, loss_weight, ignore_index'),
    'cls_weight': (FusedFocalLoss, "did you mean 'class_weight'"),
    'epsilon_': (FusedFocalLoss, 'it has use_sigmoid'),  # PolyFocalLoss has epsilon: here it would be without effect
}


@pytest.mark.parametrize('given', REMEDIES)
def test_leftovers_of_other_losses_name_the_remedy(given):
    """Arguments of CrossEntropyLoss, SeesawLoss and others, left in a config of which only the type was changed."""
    kind, remedy = REMEDIES[given]
    name = given.partition(',')[0]
    with pytest.raises(TypeError, match=rf"{kind.__name__} has no argument '{name}': .*{remedy}.*_delete_=True"):
        kind(**{name: 0.1})


POS_WEIGHT = {
    'focal': 'write alpha',
    'equalized_focal': 'write alpha',
    'varifocal': 'write class_weight',
    'quality_focal': 'write class_weight',
    'softmax_focal': 'write class_weight',
}


@pytest.mark.parametrize('name', POS_WEIGHT)
def test_pos_weight_names_what_weights_positives(name):
    """FusedGaussianFocalLoss has an argument of that name, so it is a warning; alpha of some losses is something else."""
    with pytest.warns(UserWarning, match=f'does not use pos_weight=2.0.*For pos_weight: {POS_WEIGHT[name]}'):
        built(name, pos_weight=2.0)


@pytest.mark.parametrize('name', ('ignore_index', 'class_weight'))
@pytest.mark.parametrize('kind', (losses.FusedGaussianFocalLoss, losses.FusedMaskFocalLoss))
def test_classes_that_pick_no_rows_say_so(kind, name):
    with pytest.warns(UserWarning, match=f'{kind.__name__} does not use {name}=.*into weight'):
        kind(**{name: 1})


def test_alpha_above_1_names_the_remedy():
    for value in (2.0, [0.2, 2.0]):
        with pytest.raises(ValueError, match=r'alpha must be in \[0, 1\], got 2.0 .*into class_weight.*loss_weight'):
            FusedFocalLoss(alpha=value)
    with pytest.raises(ValueError) as caught:  # which takes no class_weight
        losses.FusedMaskFocalLoss(alpha=2.0)
    assert 'class_weight' not in str(caught.value)
