"""Two-stage Deformable DETR in training: the loss of its encoder's tokens without their class logits."""

import pytest
import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import ClassificationCost
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from focal_plugin.detectors.cut_tokens import TokenLogits
from focal_plugin.losses import FusedFocalLoss
from tests.allocations import Made
from tests.detectors.selecting import FUSED, WIDTH, Adapted, chunk_of, class_branch, photos
from tests.heads.detectors import FOCAL, QUALITY, build, error, gradients, losses, with_fixed_norms

NAME = 'Deformable DETR, two stages'
MANY = 13204  # V3Det's classes
pytestmark = pytest.mark.usefixtures('one_thread')


def built(name: str, classes: int, fused: bool, loss: dict = FOCAL) -> nn.Module:
    ours = dict(type=FUSED[name], chunk=chunk_of(100, classes)) if fused else {}
    head = dict(num_classes=classes, loss_cls=loss)
    return with_fixed_norms(build(name, bbox_head=head, test_cfg=dict(max_per_img=40), **ours))


def step(model: nn.Module, classes: int, autocast: bool = False) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    torch.manual_seed(0)  # of denoising queries
    model.zero_grad()
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        total, log = losses(model, photos(classes, 0, 1))
    total.backward()
    return {key: float(value) for key, value in log.items()}, gradients(model)


@pytest.mark.sampled(1)
@pytest.mark.parametrize('name', FUSED)
def test_a_training_step_makes_no_logits_of_all_tokens(name):
    largest = {}
    for classes, fused in ((MANY, False), (MANY, True), (2, True)):
        with Made() as made:
            step(built(name, classes, fused), classes)
        largest[classes, fused] = max(made.sizes())
    most = max(largest[2, True], 2 * WIDTH * MANY)  # of the backbone; or the queries' logits, or a branch's weight
    assert largest[MANY, True] <= most < largest[MANY, False] / 3


@pytest.mark.sampled(2)
@pytest.mark.parametrize('classes', (1, 2, 80))
@pytest.mark.parametrize('loss', (FOCAL, QUALITY), ids=('labels', 'scores'))
def test_losses_and_gradients_are_those_of_held_logits(classes, loss):
    (want, theirs), (got, ours) = (step(built(NAME, classes, fused, loss), classes) for fused in (False, True))
    assert got == {key: pytest.approx(value, rel=1e-5) for key, value in want.items()}
    assert error(ours, theirs) <= 1e-5


PER_CLASS = {
    'class-balanced': dict(type='FusedClassBalancedFocalLoss', use_sigmoid=True, samples_per_class=[50, 9, 3]),
    'alpha': FOCAL | dict(alpha=[0.1, 0.25, 0.4]),
    'class_weight': FOCAL | dict(class_weight=[1.0, 2.0, 3.0]),
}


def matched_by(model: nn.Module, loss: dict) -> nn.Module:
    model.bbox_head.assigner.match_costs[0] = TASK_UTILS.build(dict(type='FusedFocalLossCost', weight=2.0, loss=loss))
    return model


@pytest.mark.parametrize('loss', PER_CLASS.values(), ids=PER_CLASS)
def test_matching_by_a_loss_of_numbers_per_class(loss):
    (want, theirs), (got, ours) = (step(matched_by(built(NAME, 3, fused, loss), loss), 3) for fused in (False, True))
    assert got == {key: pytest.approx(value, rel=1e-5) for key, value in want.items()}
    assert error(ours, theirs) <= 1e-5


def test_matching_by_numbers_per_class_makes_no_logits_of_all_tokens():
    largest = []
    for classes in (2, MANY):
        loss = FOCAL | dict(alpha=[0.25] * classes)
        model = matched_by(built(NAME, classes, True, loss), loss)
        with Made() as made:
            step(model, classes)
        largest.append(max(made.sizes()))
    assert largest[1] <= max(largest[0], 2 * WIDTH * MANY)  # of the backbone; or the queries' logits, or a weight


def second(objects: list[InstanceData]) -> list[InstanceData]:
    """The same, of the second class."""
    return [InstanceData(bboxes=each.bboxes, labels=torch.ones_like(each.labels)) for each in objects]


class OfTheSecondClass(DeformableDETRHead):
    """Its objects are of another class than the first, also for the proposals."""

    def loss_by_feat_single(self, cls_scores, bbox_preds, batch_gt_instances, batch_img_metas):
        return super().loss_by_feat_single(cls_scores, bbox_preds, second(batch_gt_instances), batch_img_metas)


class ByTheLastClass(HungarianAssigner):
    """Matches by another class's scores than the first's."""

    def assign(self, pred_instances, gt_instances, img_meta=None):
        flipped = InstanceData(bboxes=pred_instances.bboxes, scores=pred_instances.scores.flip(1))
        return super().assign(flipped, gt_instances, img_meta)


def of_another_class(head: DeformableDETRHead) -> None:
    head.__class__ = OfTheSecondClass


def patched(head: DeformableDETRHead) -> None:
    matched = head.loss_by_feat_single
    head.loss_by_feat_single = lambda scores, boxes, batch_gt_instances, batch_img_metas: matched(
        scores, boxes, second(batch_gt_instances), batch_img_metas
    )


def by_another_assigner(head: DeformableDETRHead) -> None:
    head.assigner.__class__ = ByTheLastClass


@pytest.mark.parametrize('change', (of_another_class, patched, by_another_assigner))
def test_a_head_or_assigner_that_matches_otherwise_trains_as_in_mmdet(change):
    results = []
    for fused in (False, True):
        model = built(NAME, 2, fused)
        change(model.bbox_head)
        results.append(step(model, 2))
    (want, theirs), (got, ours) = results
    assert got == {key: pytest.approx(value, rel=1e-5) for key, value in want.items()}
    assert error(ours, theirs) <= 1e-5


def test_a_wrapped_head_and_one_that_matches_as_mmdets_are_cut():
    model = built(NAME, 2, True)
    model.bbox_head.__class__ = type('Other', (DeformableDETRHead,), {})
    model.bbox_head.assigner.__class__ = type('Other', (HungarianAssigner,), {})
    assert model._is_cut
    if hasattr(nn.Module, 'compile'):
        model.bbox_head = torch.compile(model.bbox_head)
        assert model._is_cut


class Called(TorchDispatchMode):
    """The names of the operators that are called within it."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_the_branch_stays_a_matrix_product():
    """For which PyTorch keeps TF32 off unless told otherwise, and to a GPU's convolutions allows it."""
    tokens, branch = torch.randn(2, 30, 16, requires_grad=True), nn.Linear(16, 7)
    with Called() as called:
        logits = TokenLogits(tokens, branch, size=3 * 60 * 4, scored=False, columns=1)
        FusedFocalLoss()(logits.reshape(-1, 7), torch.arange(60) % 8).backward()
    assert {'mm', 'bmm', 'addmm'} & called.names and not any('conv' in name for name in called.names)
    assert tokens.grad.norm() > 0 and branch.weight.grad.norm() > 0 and branch.bias.grad.norm() > 0


@pytest.mark.slow
def test_bfloat16_is_as_exact_as_with_held_logits():
    branch = [f'bbox_head.cls_branches.2.{name}' for name in ('weight', 'bias')]  # that of the tokens alone
    exact = step(built(NAME, 80, False), 80)[1]
    worst = []
    for fused in (False, True):
        found = step(built(NAME, 80, fused), 80, autocast=True)[1]
        worst.append(error({key: found[key] for key in branch}, {key: exact[key] for key in branch}))
    assert 0 < worst[1] <= 1.1 * worst[0]


def adapted(model: nn.Module) -> None:
    model.bbox_head.cls_branches[model.decoder.num_layers] = Adapted(class_branch(model))


def hooked(model: nn.Module) -> None:
    class_branch(model).register_forward_hook(lambda module, given, found: found)


@pytest.mark.parametrize('change', (adapted, hooked))
def test_a_branch_that_would_be_passed_by_is_refused_in_training(change):
    model = built(NAME, 2, True)
    change(model)
    with pytest.raises(TypeError, match=r'must be an nn.Linear without hooks, got .*: go back to DeformableDETR'):
        step(model, 2)
    model.eval().test_step(photos(2, 0))


def with_mmdets_loss(model: nn.Module) -> None:
    model.bbox_head.loss_cls = build(NAME).bbox_head.loss_cls


def with_a_cost_of_all_classes(model: nn.Module) -> None:
    model.bbox_head.assigner.match_costs[0] = ClassificationCost(weight=2.0)


class Assigner(nn.Module):
    """Somebody's own, without match_costs."""

    def __init__(self, assigner):
        super().__init__()
        self.assign = assigner.assign


def with_an_assigner_of_its_own(model: nn.Module) -> None:
    model.bbox_head.assigner = Assigner(model.bbox_head.assigner)


@pytest.mark.parametrize('change', (with_mmdets_loss, with_a_cost_of_all_classes, with_an_assigner_of_its_own))
def test_what_needs_whole_logits_trains_as_mmdets(change):
    found = []
    for fused in (False, True):
        model = built(NAME, 3, fused)
        change(model)
        found.append(step(model, 3))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(grad, found[1][1][key]) for key, grad in found[0][1].items())


def test_a_second_backward_is_refused():
    total, _ = losses(built(NAME, 2, True), photos(2, 0))
    total.backward(retain_graph=True)
    with pytest.raises(
        RuntimeError, match=r'the loss of a FusedDeformableDETR in training, .* or go back to Deformable'
    ):
        total.backward()


def test_what_asks_for_the_logits_is_told_that_there_are_none():
    model = built(NAME, 2, True)
    given = dict(memory=torch.randn(1, 20, WIDTH), memory_mask=None, spatial_shapes=torch.tensor([(4, 5)]))
    model.num_queries = 5
    logits = model.pre_decoder(**given)[1]['enc_outputs_class']
    rows = logits.reshape(-1, 2)
    asked = [lambda: logits.sigmoid(), lambda: logits[0, 0], lambda: logits.reshape(2, -1), lambda: logits + 1]
    asked += [lambda: rows[torch.tensor([0])], lambda: rows.sigmoid()[torch.tensor([0])], lambda: rows.detach()]
    asked += [lambda: torch.cat([rows, rows])]
    for ask in asked:
        with pytest.raises((TypeError, AttributeError), match='is not known of the class logits of the tokens'):
            ask()
