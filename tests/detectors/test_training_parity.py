"""Detectors on photos, the same seed, weights and order: mmdet's with its losses, and ours with ours."""

import pytest
import torch
from torch import nn

from focal_plugin.losses import FusedFocalLoss
from tests.detectors.selecting import FUSED, chunk_of, class_branch, photos
from tests.heads.detectors import FOCAL, build, error, gradients, losses, with_fixed_norms

ITERATIONS = 5
PHOTOS = (0, 1)


pytestmark = pytest.mark.usefixtures('one_thread')


def built(name: str, classes: int, fused: bool) -> nn.Module:
    head = dict(num_classes=classes) | (dict(loss_cls=FOCAL) if fused else {})
    ours = dict(type=FUSED[name], chunk=chunk_of(100, classes)) if fused else {}
    model = with_fixed_norms(build(name, bbox_head=head, test_cfg=dict(max_per_img=40), **ours))
    assert isinstance(model.bbox_head.loss_cls, FusedFocalLoss) is fused
    return model


def trained(model: nn.Module, classes: int) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The losses of each iteration and the gradients of the first."""
    # Plain SGD with clipping: Adam's normalisation would blow rounding up.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    logged, first = [], None
    for iteration in range(ITERATIONS):
        torch.manual_seed(iteration)  # of dropout and of denoising queries
        total, log = losses(model, photos(classes, 2 * iteration, 2 * iteration + 1))
        optimizer.zero_grad()
        total.backward()
        first = first or gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        logged.append({key: float(value) for key, value in log.items()})
    return logged, first


@pytest.mark.sampled(1)
@pytest.mark.parametrize('name', FUSED)
@pytest.mark.parametrize('classes', (2, pytest.param(1203, marks=pytest.mark.slow)))
def test_training_is_that_of_mmdet(name, classes):
    (theirs, want), (ours, found) = (trained(built(name, classes, fused), classes) for fused in (False, True))
    for iteration in range(ITERATIONS):
        bound = 1e-4 if iteration else 1e-5
        assert ours[iteration] == {key: pytest.approx(loss, rel=bound) for key, loss in theirs[iteration].items()}
    assert error(found, want) <= 1e-5


@pytest.mark.parametrize('name', FUSED)
@pytest.mark.parametrize('classes', (2, pytest.param(1203, marks=pytest.mark.slow)))
def test_predictions_are_those_of_mmdet(name, classes):
    stock, fused = (built(name, classes, fused).eval() for fused in (False, True))
    nn.init.normal_(class_branch(stock).bias)  # else scores differ little
    fused.load_state_dict(stock.state_dict())
    (want, found) = (model.test_step(photos(classes, *PHOTOS)) for model in (stock, fused))
    for theirs, ours in zip(want, found, strict=True):
        assert len(theirs.pred_instances) > 0
        for key in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(ours.pred_instances[key], theirs.pred_instances[key], rtol=1e-5, atol=1e-4)
